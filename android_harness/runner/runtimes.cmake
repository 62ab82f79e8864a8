# The targets onnxruntime_runtime, executorch_runtime and torchscript_runtime, where their roots are given.

# Puts a shared library beside the runners under the name that the loader asks for, its SONAME, which is not
# always what a wheel or an AAR calls the file. `result` becomes its new path.
function(put_beside library result)
  execute_process(COMMAND ${CMAKE_READELF} -d ${library} OUTPUT_VARIABLE dynamic ERROR_QUIET)
  string(REGEX MATCH "SONAME[^\\[]*\\[([^]/]+)\\]" found "${dynamic}")
  if(NOT found)
    message(FATAL_ERROR "${library} is no shared library with a SONAME")
  endif()
  set(beside ${CMAKE_BINARY_DIR}/bin/${CMAKE_MATCH_1})
  if(CMAKE_CROSSCOMPILING)
    configure_file(${library} ${beside} COPYONLY)  # it is pushed with the runner
  else()
    file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
    file(CREATE_LINK ${library} ${beside} SYMBOLIC)
  endif()
  set(${result} ${beside} PARENT_SCOPE)
endfunction()

# --- ONNX Runtime: one library; the part of its interface that is called is in onnxruntime/.
if(ONNXRUNTIME_LIBRARY)
  put_beside(${ONNXRUNTIME_LIBRARY} library)
  add_library(onnxruntime_library SHARED IMPORTED)
  set_target_properties(onnxruntime_library PROPERTIES IMPORTED_LOCATION ${library})
  add_library(onnxruntime_runtime INTERFACE)
  target_include_directories(onnxruntime_runtime SYSTEM INTERFACE ${CMAKE_CURRENT_SOURCE_DIR}/onnxruntime)
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
if(EXECUTORCH_ROOT AND EXISTS ${EXECUTORCH_ROOT}/lib/libexecutorch_kernels_optimized.so)
  # A wheel: shared libraries, and headers but for one, of which the part that is called is in executorch/.
  # The libraries register their kernels when they are loaded; nothing names them.
  add_library(executorch_runtime INTERFACE)
  target_include_directories(executorch_runtime SYSTEM INTERFACE ${EXECUTORCH_ROOT}/include
    ${EXECUTORCH_ROOT}/include/executorch/runtime/core/portable_type/c10
    ${CMAKE_CURRENT_SOURCE_DIR}/executorch)
  target_link_options(executorch_runtime INTERFACE "LINKER:--no-as-needed" "LINKER:--allow-shlib-undefined")
  foreach(part "" _threadpool _kernels_optimized _kernels_quantized _backend_xnnpack)
    put_beside(${EXECUTORCH_ROOT}/lib/libexecutorch${part}.so library)
    target_link_libraries(executorch_runtime INTERFACE ${library})
  endforeach()
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
elseif(EXECUTORCH_ROOT)
  message(FATAL_ERROR "${EXECUTORCH_ROOT} holds no ExecuTorch")
endif()

# --- ExecuTorch with Vulkan: a runner of its own, so that no GPU's driver is loaded where a CPU is measured.
if(VULKAN_ROOT)
  # A build for Android, a stand-in for its C library, and Mesa's software driver with what that needs.
  set(beside ${CMAKE_BINARY_DIR}/bin/vulkan)
  file(GLOB library_files ${VULKAN_ROOT}/*.so)
  list(FILTER library_files EXCLUDE REGEX vulkan_runner)
  foreach(library ${library_files} ${VULKAN_DRIVER})
    get_filename_component(name ${library} NAME)
    file(MAKE_DIRECTORY ${beside})
    file(CREATE_LINK ${library} ${beside}/${name} SYMBOLIC)
  endforeach()
  file(WRITE ${beside}/lavapipe.json [[{"file_format_version": "1.0.0",
    "ICD": {"library_path": "./libvulkan_lvp.so", "api_version": "1.3.0"}}]])
  add_library(vulkan_runtime INTERFACE)
  target_include_directories(vulkan_runtime SYSTEM INTERFACE ${CMAKE_CURRENT_SOURCE_DIR}/executorch
    ${VULKAN_ROOT}/include ${VULKAN_ROOT}/include/executorch/runtime/core/portable_type/c10)
  # The path is for the libraries of the libraries too.
  target_link_options(vulkan_runtime INTERFACE "LINKER:--disable-new-dtags" "LINKER:--allow-shlib-undefined")
  target_link_libraries(vulkan_runtime INTERFACE ${VULKAN_ROOT}/libexecutorch_jni.so)
  target_compile_definitions(vulkan_runtime INTERFACE SOFTWARE_VULKAN C10_USING_CUSTOM_GENERATED_MACROS
    EXECUTORCH_VERSION="${VULKAN_VERSION}")
elseif(TARGET vulkan_backend)
  add_library(vulkan_runtime INTERFACE)
  target_link_libraries(vulkan_runtime INTERFACE executorch_runtime vulkan_backend)
endif()
