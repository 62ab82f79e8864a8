# The targets onnxruntime_runtime, executorch_runtime and torchscript_runtime, where their roots are given.

# --- ONNX Runtime: headers and one library, wherever a distribution keeps them.
if(ONNXRUNTIME_ROOT)
  find_path(ONNXRUNTIME_FOUND_INCLUDE onnxruntime_c_api.h
    PATHS ${ONNXRUNTIME_ROOT}/include ${ONNXRUNTIME_ROOT}/include/onnxruntime ${ONNXRUNTIME_ROOT}/headers
    NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH REQUIRED)
  find_library(ONNXRUNTIME_FOUND_LIBRARY onnxruntime
    PATHS ${ONNXRUNTIME_ROOT}/lib ${ONNXRUNTIME_ROOT}/jni/arm64-v8a ${ONNXRUNTIME_ROOT}/lib/aarch64-linux-gnu
    NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH REQUIRED)
else()
  set(ONNXRUNTIME_FOUND_INCLUDE ${ONNXRUNTIME_INCLUDE})
  set(ONNXRUNTIME_FOUND_LIBRARY ${ONNXRUNTIME_LIBRARY})
endif()
if(ONNXRUNTIME_FOUND_INCLUDE AND ONNXRUNTIME_FOUND_LIBRARY)
  # The loader asks for the library by its SONAME, which is not what a wheel or an AAR calls the file.
  execute_process(COMMAND ${CMAKE_READELF} -d ${ONNXRUNTIME_FOUND_LIBRARY} OUTPUT_VARIABLE dynamic ERROR_QUIET)
  string(REGEX MATCH "SONAME[^\\[]*\\[([^]/]+)\\]" found "${dynamic}")
  if(NOT found)
    message(FATAL_ERROR "${ONNXRUNTIME_FOUND_LIBRARY} is no shared library with a SONAME")
  endif()
  set(ONNXRUNTIME_BESIDE ${CMAKE_BINARY_DIR}/bin/${CMAKE_MATCH_1})
  if(CMAKE_CROSSCOMPILING)
    configure_file(${ONNXRUNTIME_FOUND_LIBRARY} ${ONNXRUNTIME_BESIDE} COPYONLY)  # it is pushed with the runner
  else()
    file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
    file(CREATE_LINK ${ONNXRUNTIME_FOUND_LIBRARY} ${ONNXRUNTIME_BESIDE} SYMBOLIC)
  endif()
  add_library(onnxruntime_library SHARED IMPORTED)
  set_target_properties(onnxruntime_library PROPERTIES IMPORTED_LOCATION ${ONNXRUNTIME_BESIDE})
  add_library(onnxruntime_runtime INTERFACE)
  target_include_directories(onnxruntime_runtime SYSTEM INTERFACE ${ONNXRUNTIME_FOUND_INCLUDE})
  target_link_libraries(onnxruntime_runtime INTERFACE onnxruntime_library)
  if(CMAKE_CROSSCOMPILING)
    # What the library itself needs is the device's business.
    target_link_options(onnxruntime_runtime INTERFACE "LINKER:--allow-shlib-undefined"
      "LINKER:--unresolved-symbols=ignore-in-shared-libs")
  endif()
endif()

# --- LibTorch: plain headers and libraries; its CMake package would look for CUDA and MKL.
if(TORCH_ROOT)
  add_library(torchscript_runtime INTERFACE)
  target_include_directories(torchscript_runtime SYSTEM INTERFACE ${TORCH_ROOT}/include)
  target_link_directories(torchscript_runtime INTERFACE ${TORCH_ROOT}/lib)
  # libtorch registers the CPU kernels when it is loaded, so it must stay although nothing names it.
  target_link_libraries(torchscript_runtime INTERFACE -Wl,--no-as-needed torch torch_cpu c10 -Wl,--as-needed)
  target_link_options(torchscript_runtime INTERFACE "LINKER:-rpath,${TORCH_ROOT}/lib")
endif()

# --- ExecuTorch
file(GLOB EXECUTORCH_WHEEL_LIBRARY ${EXECUTORCH_ROOT}/extension/pybindings/_portable_lib*.so)
if(EXECUTORCH_ROOT AND EXECUTORCH_WHEEL_LIBRARY)
  # The wheel has no library of the runtime alone: its Python module holds it and needs Python and torch.
  # It lacks one header that its own include; torch's wheel has it, beside others that clash with ExecuTorch's.
  file(COPY ${TORCH_ROOT}/include/pthreadpool.h DESTINATION ${CMAKE_BINARY_DIR}/pthreadpool)
  add_library(executorch_runtime INTERFACE)
  target_include_directories(executorch_runtime SYSTEM INTERFACE ${EXECUTORCH_ROOT}/include
    ${CMAKE_BINARY_DIR}/pthreadpool
    ${EXECUTORCH_ROOT}/include/executorch/runtime/core/portable_type/c10)
  target_link_directories(executorch_runtime INTERFACE ${TORCH_ROOT}/lib)
  target_link_libraries(executorch_runtime INTERFACE ${EXECUTORCH_WHEEL_LIBRARY}
    ${EXECUTORCH_ROOT}/backends/qualcomm/libqnn_executorch_backend.so
    torch_python torch torch_cpu c10 ${PYTHON_LIBRARY})
  cmake_path(GET PYTHON_LIBRARY PARENT_PATH PYTHON_LIBRARY_FOLDER)
  target_link_options(executorch_runtime INTERFACE "LINKER:-rpath,${TORCH_ROOT}/lib"
    "LINKER:-rpath,${EXECUTORCH_ROOT}/extension/pybindings" "LINKER:-rpath,${EXECUTORCH_ROOT}/backends/qualcomm"
    "LINKER:-rpath,${PYTHON_LIBRARY_FOLDER}" "LINKER:--allow-shlib-undefined")
elseif(EXECUTORCH_ROOT)
  find_package(executorch CONFIG REQUIRED PATHS ${EXECUTORCH_ROOT} NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH)
  add_library(executorch_runtime INTERFACE)
  foreach(library executorch xnnpack_backend extension_threadpool quantized_ops_lib)
    if(TARGET ${library})
      target_link_libraries(executorch_runtime INTERFACE ${library})
    endif()
  endforeach()
  # Both register the portable operators; the optimised ones fall back to the portable ones themselves.
  if(TARGET optimized_native_cpu_ops_lib)
    target_link_libraries(executorch_runtime INTERFACE optimized_native_cpu_ops_lib)
  else()
    target_link_libraries(executorch_runtime INTERFACE portable_ops_lib)
  endif()
endif()
if(TARGET executorch_runtime)
  target_compile_definitions(executorch_runtime INTERFACE C10_USING_CUSTOM_GENERATED_MACROS
    EXECUTORCH_VERSION="${EXECUTORCH_VERSION}")
endif()
