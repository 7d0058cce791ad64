// The program of a node: the operators of a Scan's body, as the node's attributes state them.
//
// Values are numbered: the inputs of the node first (states, scanned sequences, and what the body
// captures of the graph around it), then the result of each operator. Each operator reads values
// before its own. The outputs are the states after the last step, and sequences.
//
//   operators  the names of the operators, as FunctionTable has them, with spaces between them
//   operands   three numbers of values for each; -1 for none
//   results    the number of the value of each output
//   states, sequences  how many of the inputs are such
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "base/call.h"
#include "scan/functions.h"

namespace synapse {

inline char letter_of(ONNXTensorElementDataType type) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
      return 'f';
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE:
      return 'd';
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32:
      return 'i';
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64:
      return 'l';
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL:
      return 'b';
    default:
      throw CallError("a tensor of a type that no operator takes");
  }
}

struct Program {
  struct Operator {
    const ElementFunction* function;
    std::vector<int> operands;
  };

  int states, sequences, inputs;
  std::vector<Operator> operators;
  std::vector<int> results;
  std::string types;  // the letter of each value

  int values() const { return static_cast<int>(types.size()); }
  bool is_state(int value) const { return value < states; }
  bool is_sequence(int value) const { return value >= states && value < states + sequences; }

  explicit Program(const OrtKernelInfo* raw) {
    const Ort::ConstKernelInfo info(raw);
    states = static_cast<int>(info.GetAttribute<int64_t>("states"));
    sequences = static_cast<int>(info.GetAttribute<int64_t>("sequences"));
    inputs = static_cast<int>(info.GetInputCount());
    for (int k = 0; k < inputs; k++)
      types += letter_of(info.GetInputTypeInfo(k).GetTensorTypeAndShapeInfo().GetElementType());
    const auto operands = info.GetAttributes<int64_t>("operands");
    const auto numbers = info.GetAttributes<int64_t>("results");
    const std::vector<std::string> names = words(info.GetAttribute<std::string>("operators"));
    if (states < 0 || sequences < 1 || states + sequences > inputs ||
        (!names.empty() && operands.size() != 3 * names.size()) ||
        numbers.size() != info.GetOutputCount() || static_cast<int>(numbers.size()) < states)
      throw CallError("the attributes do not fit together");
    for (size_t k = 0; k < names.size(); k++) {
      Operator made{};
      std::string letters;
      for (size_t i = 3 * k; i < 3 * k + 3 && operands[i] >= 0; i++) {
        made.operands.push_back(checked(operands[i]));
        letters += types[operands[i]];
      }
      made.function = FunctionTable::find(names[k], letters);
      if (made.function == nullptr)
        throw CallError("no operator ", names[k].c_str(), " of ", letters.c_str());
      operators.push_back(made);
      types += made.function->output;
    }
    for (const int64_t number : numbers) results.push_back(checked(number));
    for (int s = 0; s < states; s++)
      if (types[results[s]] != types[s]) throw CallError("a state changes its type");
  }

 private:
  int checked(int64_t value) const {
    if (value < 0 || value >= values()) throw CallError("there is no value ", value);
    return static_cast<int>(value);
  }

  static std::vector<std::string> words(const std::string& text) {
    std::vector<std::string> found;
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find(' ', at), text.size());
      found.push_back(text.substr(at, end - at));
      at = end + 1;
    }
    return found;
  }
};

}  // namespace synapse
