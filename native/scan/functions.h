// Elementwise operators over a block of elements: a loop each, which the compiler vectorises.
//
// A bool is an int32 of 0 or 1 while a loop runs: as wide as a float, so that comparisons, casts
// and choices need no packing. Results are those of ONNX Runtime's operators, bit for bit, but
// those of smooth.h, and the sign of a zero that Max, Min or Where takes: ONNX Runtime's depends on
// where it lies. Integers wrap.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "base/compiler.h"
#include "scan/smooth.h"

namespace synapse {

// A bool within a block. A structure, so that it is another type than int32_t.
struct Flag {
  int32_t value;
};

// The letter of a type, as functions are declared by: f float, d double, i int32, l int64, b bool.
template <class T>
constexpr char letter() {
  if (std::is_same_v<T, float>) return 'f';
  if (std::is_same_v<T, double>) return 'd';
  if (std::is_same_v<T, int32_t>) return 'i';
  if (std::is_same_v<T, int64_t>) return 'l';
  return 'b';
}

// Bytes of an element in a block, and in a tensor.
inline int64_t width_of(char type) { return type == 'd' || type == 'l' ? 8 : 4; }
inline int64_t stored_width_of(char type) { return type == 'b' ? 1 : width_of(type); }

// y[i] = f(a[i], b[i], ...) for `count` elements: at[places[0]] is y, at[places[1]] is a.
// y may be one of the others where its elements are as wide.
using BlockFunction = void (*)(void* const* at, const int* places, int64_t count);
constexpr int kMostInputs = 4;

struct ElementFunction {
  std::string name;    // of the operator
  std::string inputs;  // the letters of its inputs
  char output;
  BlockFunction run;
};

template <class F, class Y, class A>
struct OfOne {
  SYNAPSE_CLONES static void run(void* const* at, const int* places, int64_t count) {
    auto* y = static_cast<Y*>(at[places[0]]);
    const auto* a = static_cast<const A*>(at[places[1]]);
    SYNAPSE_INDEPENDENT
    for (int64_t i = 0; i < count; i++) y[i] = F::template of<Y>(a[i]);
  }
};

template <class F, class Y, class A, class B>
struct OfTwo {
  SYNAPSE_CLONES static void run(void* const* at, const int* places, int64_t count) {
    auto* y = static_cast<Y*>(at[places[0]]);
    const auto* a = static_cast<const A*>(at[places[1]]);
    const auto* b = static_cast<const B*>(at[places[2]]);
    SYNAPSE_INDEPENDENT
    for (int64_t i = 0; i < count; i++) y[i] = F::template of<Y>(a[i], b[i]);
  }
};

template <class F, class Y, class A, class B, class C>
struct OfThree {
  SYNAPSE_CLONES static void run(void* const* at, const int* places, int64_t count) {
    auto* y = static_cast<Y*>(at[places[0]]);
    const auto* a = static_cast<const A*>(at[places[1]]);
    const auto* b = static_cast<const B*>(at[places[2]]);
    const auto* c = static_cast<const C*>(at[places[3]]);
    SYNAPSE_INDEPENDENT
    for (int64_t i = 0; i < count; i++) y[i] = F::template of<Y>(a[i], b[i], c[i]);
  }
};

template <class F, class Y, class A, class B, class C, class D>
struct OfFour {
  SYNAPSE_CLONES static void run(void* const* at, const int* places, int64_t count) {
    auto* y = static_cast<Y*>(at[places[0]]);
    const auto* a = static_cast<const A*>(at[places[1]]);
    const auto* b = static_cast<const B*>(at[places[2]]);
    const auto* c = static_cast<const C*>(at[places[3]]);
    const auto* d = static_cast<const D*>(at[places[4]]);
    SYNAPSE_INDEPENDENT
    for (int64_t i = 0; i < count; i++) y[i] = F::template of<Y>(a[i], b[i], c[i], d[i]);
  }
};

// -- the operators -------------------------------------------------------------------------------

// T is the type of an operator's arguments, Y that of its result.
#define SYNAPSE_ONE(NAME, EXPRESSION) \
  struct NAME {                       \
    template <class Y, class T>       \
    SYNAPSE_INLINE static Y of(T a) { \
      return EXPRESSION;              \
    }                                 \
  };
#define SYNAPSE_TWO(NAME, EXPRESSION)      \
  struct NAME {                            \
    template <class Y, class T>            \
    SYNAPSE_INLINE static Y of(T a, T b) { \
      return EXPRESSION;                   \
    }                                      \
  };

namespace elementwise {

SYNAPSE_TWO(Add, a + b)
SYNAPSE_TWO(Sub, a - b)
SYNAPSE_TWO(Mul, a* b)
SYNAPSE_TWO(Div, a / b)
// NaN where either is NaN; of equal ones, such as 0 and -0, the second
SYNAPSE_TWO(Max, a > b || a != a ? a : b)
SYNAPSE_TWO(Min, a < b || a != a ? a : b)
SYNAPSE_TWO(Less, (Y{a < b}))
SYNAPSE_TWO(LessOrEqual, (Y{a <= b}))
SYNAPSE_TWO(Greater, (Y{a > b}))
SYNAPSE_TWO(GreaterOrEqual, (Y{a >= b}))
SYNAPSE_TWO(Equal, (Y{a == b}))
SYNAPSE_TWO(SameFlag, (Y{a.value == b.value}))
SYNAPSE_TWO(And, (Y{a.value & b.value}))
SYNAPSE_TWO(Or, (Y{a.value | b.value}))
SYNAPSE_TWO(Xor, (Y{a.value ^ b.value}))
SYNAPSE_TWO(Pow, std::pow(a, b))    // the C library's, as ONNX Runtime's
SYNAPSE_TWO(Fmod, std::fmod(a, b))  // exact
SYNAPSE_TWO(Remainder, a % b)       // with the sign of a
// with the sign of b
SYNAPSE_TWO(Mod, a % b + ((a % b != 0 && (a % b < 0) != (b < 0)) ? b : 0))

SYNAPSE_ONE(Not, (Y{a.value ^ 1}))
SYNAPSE_ONE(Neg, -a)
SYNAPSE_ONE(Sign, a > 0 ? T(1) : a < 0 ? T(-1) : a == a ? T(0) : a)
SYNAPSE_ONE(Relu, a < 0 ? T(0) : a)
SYNAPSE_ONE(Floor, std::floor(a))
SYNAPSE_ONE(Ceil, std::ceil(a))
SYNAPSE_ONE(Round, std::nearbyint(a))  // halves to even
SYNAPSE_ONE(Sqrt, std::sqrt(a))
SYNAPSE_ONE(Reciprocal, T(1) / a)

template <class T>
constexpr bool is_float = std::is_same_v<T, float>;
SYNAPSE_ONE(Exp, is_float<T> ? T(smooth_exp(a)) : std::exp(a))
SYNAPSE_ONE(Log, is_float<T> ? T(smooth_log(a)) : std::log(a))
SYNAPSE_ONE(Tanh, is_float<T> ? T(smooth_tanh(a)) : std::tanh(a))
SYNAPSE_ONE(Sigmoid, is_float<T> ? T(smooth_logistic(a)) : 1 / (1 + std::exp(-a)))

struct Abs {
  template <class Y, class T>
  SYNAPSE_INLINE static Y of(T a) {
    if constexpr (std::is_integral_v<T>)
      return a < 0 ? -a : a;
    else
      return std::fabs(a);
  }
};

// The first bound, then the second.
struct Clip {
  template <class Y, class T>
  SYNAPSE_INLINE static Y of(T a, T low, T high) {
    const T above = a < low ? low : a;
    return above > high ? high : above;
  }
};

struct Where {
  template <class Y, class T>
  SYNAPSE_INLINE static Y of(Flag condition, T a, T b) {
    return condition.value != 0 ? a : b;
  }
};

// A float that no integer of the type equals gives what the processor's conversion gives: on x86
// the smallest integer.
struct Cast {
  template <class Y, class T>
  SYNAPSE_INLINE static Y of(T a) {
    if constexpr (std::is_same_v<Y, Flag>) {
      return Y{a != 0};
    } else if constexpr (std::is_same_v<T, Flag>) {
      return static_cast<Y>(a.value);
#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64)
    } else if constexpr (std::is_integral_v<Y> && !std::is_integral_v<T>) {
      constexpr Y lowest = std::numeric_limits<Y>::min();
      const bool fits = a >= static_cast<T>(lowest) && a < -static_cast<T>(lowest);
      return fits ? static_cast<Y>(fits ? a : T(0)) : lowest;
#endif
    } else {
      return static_cast<Y>(a);
    }
  }
};

// Between a tensor's bools, bytes that are not 0 where true, and those of a block.
struct Widen {
  template <class Y>
  SYNAPSE_INLINE static Y of(uint8_t a) {
    return Y{a != 0};
  }
};
struct Narrow {
  template <class Y>
  SYNAPSE_INLINE static Y of(Flag a) {
    return static_cast<Y>(a.value);
  }
};

}  // namespace elementwise

#undef SYNAPSE_ONE
#undef SYNAPSE_TWO

constexpr BlockFunction widen = OfOne<elementwise::Widen, Flag, uint8_t>::run;
constexpr BlockFunction narrow = OfOne<elementwise::Narrow, uint8_t, Flag>::run;

// One element for all of a block.
template <class V>
void fill(void* const* at, const int* places, int64_t count) {
  std::fill_n(static_cast<V*>(at[places[0]]), count, *static_cast<const V*>(at[places[1]]));
}

// y[i] = a[b[i]]
template <class V>
struct Gather {
  SYNAPSE_CLONES static void run(void* const* at, const int* places, int64_t count) {
    auto* y = static_cast<V*>(at[places[0]]);
    const auto* a = static_cast<const V*>(at[places[1]]);
    const auto* b = static_cast<const int32_t*>(at[places[2]]);
    SYNAPSE_INDEPENDENT
    for (int64_t i = 0; i < count; i++) y[i] = a[b[i]];
  }
};

// -- the table of the operators ------------------------------------------------------------------

class FunctionTable {
 public:
  // All functions: an operator is there once for each combination of types.
  static const std::vector<ElementFunction>& all() {
    static const FunctionTable table;
    return table.functions_;
  }

  // The function of an operator for inputs of these types; null where there is none.
  static const ElementFunction* find(const std::string& name, const std::string& inputs) {
    for (const ElementFunction& function : all())
      if (function.name == name && function.inputs == inputs) return &function;
    return nullptr;
  }

 private:
  FunctionTable() {
    using namespace elementwise;
    numbers<Add>("Add"), numbers<Sub>("Sub"), numbers<Mul>("Mul"), numbers<Div>("Div");
    numbers<Max>("Max"), numbers<Min>("Min");
    compared<Less>("Less"), compared<LessOrEqual>("LessOrEqual"), compared<Greater>("Greater");
    compared<GreaterOrEqual>("GreaterOrEqual"), compared<Equal>("Equal");
    two<SameFlag, Flag, Flag>("Equal");
    two<And, Flag, Flag>("And"), two<Or, Flag, Flag>("Or"), two<Xor, Flag, Flag>("Xor");
    one<Not, Flag, Flag>("Not");
    each<Neg, float, double, int32_t, int64_t>("Neg");
    each<Abs, float, double, int32_t, int64_t>("Abs");
    each<Sign, float, double, int32_t, int64_t>("Sign");
    each<Relu, float, double, int32_t>("Relu");
    each<Floor, float, double>("Floor"), each<Ceil, float, double>("Ceil");
    each<Round, float, double>("Round"), each<Sqrt, float, double>("Sqrt");
    each<Reciprocal, float, double>("Reciprocal");
    each<Exp, float, double>("Exp"), each<Log, float, double>("Log");
    each<Tanh, float, double>("Tanh"), each<Sigmoid, float, double>("Sigmoid");
    two<Pow, float, float>("Pow"), two<Pow, double, double>("Pow");
    two<Fmod, float, float>("Fmod"), two<Fmod, double, double>("Fmod");
    two<Remainder, int32_t, int32_t>("Fmod"), two<Remainder, int64_t, int64_t>("Fmod");
    two<Mod, int32_t, int32_t>("Mod"), two<Mod, int64_t, int64_t>("Mod");
    chosen<float>(), chosen<double>(), chosen<int32_t>(), chosen<int64_t>();
    casts<float>("CastToFloat"), casts<double>("CastToDouble"), casts<int32_t>("CastToInt32");
    casts<int64_t>("CastToInt64"), casts<Flag>("CastToBool");
  }

  template <class Y, class... A>
  void add(const char* name, BlockFunction run) {
    functions_.push_back({name, std::string{letter<A>()...}, letter<Y>(), run});
  }
  template <class F, class Y, class A>
  void one(const char* name) {
    add<Y, A>(name, OfOne<F, Y, A>::run);
  }
  template <class F, class Y, class A>
  void two(const char* name) {
    add<Y, A, A>(name, OfTwo<F, Y, A, A>::run);
  }
  template <class F, class... T>
  void each(const char* name) {
    (one<F, T, T>(name), ...);
  }
  template <class F>
  void numbers(const char* name) {
    two<F, float, float>(name), two<F, double, double>(name);
    two<F, int32_t, int32_t>(name), two<F, int64_t, int64_t>(name);
  }
  template <class F>
  void compared(const char* name) {
    two<F, Flag, float>(name), two<F, Flag, double>(name);
    two<F, Flag, int32_t>(name), two<F, Flag, int64_t>(name);
  }
  template <class T>
  void chosen() {
    add<T, Flag, T, T>("Where", OfThree<elementwise::Where, T, Flag, T, T>::run);
    add<T, T, T, T>("Clip", OfThree<elementwise::Clip, T, T, T, T>::run);
  }
  template <class Y>
  void casts(const char* name) {
    cast<Y, float>(name), cast<Y, double>(name), cast<Y, int32_t>(name), cast<Y, int64_t>(name);
    cast<Y, Flag>(name);
  }
  template <class Y, class A>
  void cast(const char* name) {
    if constexpr (!std::is_same_v<Y, A>) one<elementwise::Cast, Y, A>(name);
  }

  std::vector<ElementFunction> functions_;
};

}  // namespace synapse
