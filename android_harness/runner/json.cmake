# The target `json`: nlohmann_json's headers.
add_library(json INTERFACE)
if(NLOHMANN_JSON_ROOT)
  target_include_directories(json SYSTEM INTERFACE ${NLOHMANN_JSON_ROOT})
  return()
endif()
# Headers for every machine: a cross build may take this machine's.
find_path(NLOHMANN_JSON_INCLUDE nlohmann/json.hpp PATHS /usr/include NO_CMAKE_FIND_ROOT_PATH)
if(NLOHMANN_JSON_INCLUDE AND NOT CMAKE_CROSSCOMPILING)
  target_include_directories(json SYSTEM INTERFACE ${NLOHMANN_JSON_INCLUDE})
elseif(NLOHMANN_JSON_INCLUDE)
  # Only this folder: all of /usr/include would bring this machine's libc along.
  file(COPY ${NLOHMANN_JSON_INCLUDE}/nlohmann DESTINATION ${CMAKE_BINARY_DIR}/include)
  target_include_directories(json SYSTEM INTERFACE ${CMAKE_BINARY_DIR}/include)
else()
  include(FetchContent)
  FetchContent_Declare(
    nlohmann_json
    URL https://github.com/nlohmann/json/releases/download/v3.11.3/json.tar.xz
    URL_HASH SHA256=d6c65aca6b1ed68e7a182f4757257b107ae403032760ed6ef121c9d55e81757d)
  FetchContent_MakeAvailable(nlohmann_json)
  target_link_libraries(json INTERFACE nlohmann_json::nlohmann_json)
endif()
