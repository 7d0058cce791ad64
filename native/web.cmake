# Downloads onnxruntime-web from the npm registry, for `synapse-onnx play`. Where a build has no network,
# `synapse-onnx play --fetch-runtime` downloads the same files later. Version, address and checksum are
# those of synapse_onnx/deploy/play/_runtime.py.

set(SYNAPSE_ONNX_WEB "$ENV{SYNAPSE_ONNX_WEB}" CACHE STRING
    "onnxruntime-web: empty for where the registry can be reached, 0 for never, 1 for always")

function(install_web)
  file(READ "${CMAKE_CURRENT_SOURCE_DIR}/synapse_onnx/deploy/play/_runtime.py" pins)
  string(REGEX MATCH "_URL = \"([^\"]+)\"" _ "${pins}")
  set(url "${CMAKE_MATCH_1}")
  string(REGEX MATCH "_SHA512 = \\(\n    \"([0-9a-f]+)\"\n    \"([0-9a-f]+)\"" _ "${pins}")
  set(hash "${CMAKE_MATCH_1}${CMAKE_MATCH_2}")

  set(archive "${CMAKE_CURRENT_BINARY_DIR}/onnxruntime-web.tgz")
  message(STATUS "Downloading ${url}")
  file(DOWNLOAD "${url}" "${archive}" TIMEOUT 120 INACTIVITY_TIMEOUT 10 STATUS status)
  list(GET status 0 code)
  set(found "")
  if(code EQUAL 0)
    file(SHA512 "${archive}" found) # compared here: EXPECTED_HASH ends CMake when offline
  endif()
  if(NOT found STREQUAL hash)
    file(REMOVE "${archive}")
    set(sentence "onnxruntime-web could not be downloaded: ${status} ${found}")
    if(SYNAPSE_ONNX_WEB)
      message(FATAL_ERROR "SYNAPSE_ONNX_WEB is ${SYNAPSE_ONNX_WEB}, and ${sentence}")
    endif()
    message(STATUS "${sentence}; `synapse-onnx play --fetch-runtime` fetches it later")
    return()
  endif()
  set(folder "${CMAKE_CURRENT_BINARY_DIR}/onnxruntime-web")
  set(members package/dist/ort.wasm.bundle.min.mjs package/dist/ort-wasm-simd-threaded.wasm
              package/package.json)
  file(ARCHIVE_EXTRACT INPUT "${archive}" DESTINATION "${folder}" PATTERNS ${members})
  file(REMOVE "${archive}")
  list(TRANSFORM members PREPEND "${folder}/")
  install(FILES ${members} DESTINATION synapse_onnx/_web)
endfunction()

if(NOT SYNAPSE_ONNX_WEB STREQUAL "0")
  install_web()
endif()
