# The only functions that create targets. Each checks the layer rule of docs (style: "Layered"):
# a top folder may link only the folders, or single components, on its allow-list.
include_guard(GLOBAL)

set(TESSERA_MAY_USE_common "")
set(TESSERA_MAY_USE_model common)
set(TESSERA_MAY_USE_proto common)
set(TESSERA_MAY_USE_routing common model)
set(TESSERA_MAY_USE_kernels common model/formats)
set(TESSERA_MAY_USE_engram_store common model proto routing)
set(TESSERA_MAY_USE_worker common model proto kernels routing engram_store)
set(TESSERA_MAY_USE_coordinator common model proto routing)
set(TESSERA_MAY_USE_cli common model proto kernels routing engram_store worker coordinator)
# Tests and benchmarks may use everything; tests/testing is for tests only.
set(TESSERA_MAY_USE_tests ${TESSERA_MAY_USE_cli} cli)
set(TESSERA_MAY_USE_benchmarks ${TESSERA_MAY_USE_cli} cli tests)

# Sets ${out} to the repository-relative folder of the current CMakeLists.txt.
function(_tessera_folder out)
  file(RELATIVE_PATH folder "${PROJECT_SOURCE_DIR}" "${CMAKE_CURRENT_SOURCE_DIR}")
  set(${out} "${folder}" PARENT_SCOPE)
endfunction()

# Refuses a dependency that the layer rule forbids. Tests (IS_TEST) may also use tests/testing.
function(_tessera_check_layers target is_test)
  _tessera_folder(folder)
  string(REGEX REPLACE "/.*" "" top "${folder}")
  foreach(dep IN LISTS ARGN)
    if(NOT dep MATCHES "^tessera::")
      continue()
    endif()
    string(REPLACE "tessera::" "" dep_name "${dep}")
    get_property(dep_folder GLOBAL PROPERTY TESSERA_FOLDER_${dep_name})
    if(NOT dep_folder AND is_test)
      continue()  # tests/testing is declared after the folders; CMake itself refuses a name that never comes.
    endif()
    if(NOT dep_folder)
      message(FATAL_ERROR "${target}: ${dep} is not declared before it; order the folders by layer")
    endif()
    string(REGEX REPLACE "/.*" "" dep_top "${dep_folder}")
    if(is_test AND dep_folder STREQUAL "tests/testing")
      continue()
    endif()
    if(NOT dep_top STREQUAL top AND NOT dep_top IN_LIST TESSERA_MAY_USE_${top}
       AND NOT dep_folder IN_LIST TESSERA_MAY_USE_${top})
      message(FATAL_ERROR "layering: ${folder}/ may not link ${dep} (in ${dep_folder}/)")
    endif()
  endforeach()
endfunction()

function(_tessera_common_settings target)
  target_include_directories(${target} PUBLIC "${PROJECT_SOURCE_DIR}")
  target_link_libraries(${target} PRIVATE tessera_warnings)
endfunction()

# tessera_cc_library(NAME n HDRS h... SRCS s... DEPS public... PRIVATE_DEPS private... COPTS flags...)
function(tessera_cc_library)
  cmake_parse_arguments(arg "" "NAME" "HDRS;SRCS;DEPS;PRIVATE_DEPS;COPTS" ${ARGN})
  _tessera_check_layers(${arg_NAME} FALSE ${arg_DEPS} ${arg_PRIVATE_DEPS})
  set(target tessera_${arg_NAME})
  if(arg_SRCS)
    add_library(${target} STATIC ${arg_SRCS} ${arg_HDRS})
    _tessera_common_settings(${target})
    target_link_libraries(${target} PUBLIC ${arg_DEPS} PRIVATE ${arg_PRIVATE_DEPS})
    target_compile_options(${target} PRIVATE ${arg_COPTS})
  else()
    add_library(${target} INTERFACE)
    target_include_directories(${target} INTERFACE "${PROJECT_SOURCE_DIR}")
    target_link_libraries(${target} INTERFACE ${arg_DEPS})
  endif()
  add_library(tessera::${arg_NAME} ALIAS ${target})
  _tessera_folder(folder)
  set_property(GLOBAL PROPERTY TESSERA_FOLDER_${arg_NAME} "${folder}")
endfunction()

# _tessera_cost(OUT [seconds]): tests with a time limit of their own start first, the longest before the others, where
# processors are few. Those without have cost 0, which ctest replaces by the time that they took before.
function(_tessera_cost out)
  if(ARGC GREATER 1)
    set(${out} ${ARGV1} PARENT_SCOPE)
  else()
    set(${out} 0 PARENT_SCOPE)
  endif()
endfunction()

# tessera_cc_test(NAME n SRCS s... DEPS d... LABELS l... [TIMEOUT seconds] [DATA_ENV])
# The test runs in the repository root, so that it opens models/demo and tests/data by relative path.
# LABELS has one of unit, conformance, parity, integration, simulation, and rpc for a test that talks through gRPC.
# The top folder is a label too: `ctest --label-regex '^model$'` runs the tests of model/.
function(tessera_cc_test)
  cmake_parse_arguments(arg "" "NAME;TIMEOUT" "SRCS;DEPS;LABELS;ARGS" ${ARGN})
  _tessera_check_layers(${arg_NAME} TRUE ${arg_DEPS})
  add_executable(${arg_NAME} ${arg_SRCS})
  _tessera_common_settings(${arg_NAME})
  target_link_libraries(${arg_NAME} PRIVATE ${arg_DEPS} GTest::gmock GTest::gtest_main)
  if(NOT arg_LABELS)
    set(arg_LABELS unit)
  endif()
  _tessera_cost(cost ${arg_TIMEOUT})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  if(TESSERA_SANITIZE)
    math(EXPR arg_TIMEOUT "10 * ${arg_TIMEOUT}")  # The thread sanitizer is that slow.
  endif()
  _tessera_folder(folder)
  string(REGEX REPLACE "/.*" "" top "${folder}")
  add_test(NAME ${arg_NAME} COMMAND ${arg_NAME} ${arg_ARGS} WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
  set_tests_properties(${arg_NAME} PROPERTIES LABELS "${arg_LABELS};${top}" TIMEOUT ${arg_TIMEOUT}
                       COST ${cost})
endfunction()

# tessera_script_test(NAME n COMMAND c... LABELS l... [TIMEOUT seconds] [ENVIRONMENT k=v...] [SERIAL])
# It also gets the label script: only the optimised build runs it.
function(tessera_script_test)
  cmake_parse_arguments(arg "SERIAL" "NAME;TIMEOUT" "COMMAND;LABELS;ENVIRONMENT" ${ARGN})
  _tessera_cost(cost ${arg_TIMEOUT})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  add_test(NAME ${arg_NAME} COMMAND ${arg_COMMAND} WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
  set_tests_properties(${arg_NAME} PROPERTIES LABELS "script;${arg_LABELS}" TIMEOUT ${arg_TIMEOUT} COST ${cost}
                       ENVIRONMENT "${arg_ENVIRONMENT}")
  if(arg_SERIAL)
    set_tests_properties(${arg_NAME} PROPERTIES RUN_SERIAL TRUE)
  endif()
endfunction()

# tessera_cc_binary(NAME n SRCS s... DEPS d... [OUTPUT_DIR dir])
function(tessera_cc_binary)
  cmake_parse_arguments(arg "" "NAME;OUTPUT_DIR" "SRCS;DEPS" ${ARGN})
  _tessera_check_layers(${arg_NAME} FALSE ${arg_DEPS})
  add_executable(${arg_NAME} ${arg_SRCS})
  _tessera_common_settings(${arg_NAME})
  target_link_libraries(${arg_NAME} PRIVATE ${arg_DEPS})
  if(arg_OUTPUT_DIR)
    set_target_properties(${arg_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${arg_OUTPUT_DIR}")
  endif()
endfunction()

# tessera_cc_benchmark(NAME n SRCS s... DEPS d...): google-benchmark, built and never run by ctest.
function(tessera_cc_benchmark)
  cmake_parse_arguments(arg "" "NAME" "SRCS;DEPS" ${ARGN})
  if(NOT TARGET benchmark::benchmark)
    return()
  endif()
  _tessera_check_layers(${arg_NAME} TRUE ${arg_DEPS})
  add_executable(${arg_NAME} ${arg_SRCS})
  _tessera_common_settings(${arg_NAME})
  target_link_libraries(${arg_NAME} PRIVATE ${arg_DEPS} benchmark::benchmark)
endfunction()

# Sets ${out} to the objects that nvcc makes of the files for sm_90a, each with what ptxas says of its kernels beside it (*.ptxas.txt).
function(_tessera_nvcc_objects out name)
  set(objects "")
  # Not -arch=sm_90a, which also makes PTX for compute_90, and that has no wgmma. No fused multiply-add but those that are written; fmt
  # wants to be told that nvcc knows constexpr. 554, 177: conversions of spans and functions that one side of a header does not use.
  set(flags -std=c++20 -gencode arch=compute_90a,code=sm_90a --expt-relaxed-constexpr -fmad=false -diag-suppress 554,177
      -DFMT_USE_CONSTEXPR=1 -O2 -DNDEBUG -Xcompiler=-fPIC,-ffp-contract=off --resource-usage "-I${PROJECT_SOURCE_DIR}")
  if(TESSERA_WERROR)
    list(APPEND flags -Werror=all-warnings)
  endif()
  foreach(file IN LISTS ARGN)
    get_filename_component(stem "${file}" NAME)
    set(object "${CMAKE_CURRENT_BINARY_DIR}/${name}_objects/${stem}.o")
    set(report "${CMAKE_CURRENT_BINARY_DIR}/${name}_objects/${stem}.ptxas.txt")
    file(MAKE_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}/${name}_objects")
    # The report is all that nvcc prints where it succeeds.
    add_custom_command(
      OUTPUT "${object}" BYPRODUCTS "${report}"
      COMMAND sh -c "\"$@\" 2>\"$0\" || { cat \"$0\" >&2; exit 1; }" "${report}"
              "${TESSERA_NVCC}" ${flags} -MD -MF "${object}.d" -MT "${object}" -o "${object}" -x cu
              -c "${CMAKE_CURRENT_SOURCE_DIR}/${file}"
      DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/${file}" DEPFILE "${object}.d" VERBATIM)
    list(APPEND objects "${object}")
  endforeach()
  set(${out} ${objects} PARENT_SCOPE)
endfunction()

# tessera_cuda_library(NAME n SRCS files... DEPS d...): a library that nvcc compiles for sm_90a. TESSERA_CUDA=ON: the library tessera::n.
# AUTO: where nvcc is found, the target n makes its objects, to see that nvcc takes them, and no program depends on it. OFF: nothing.
function(tessera_cuda_library)
  cmake_parse_arguments(arg "" "NAME" "SRCS;DEPS" ${ARGN})
  _tessera_check_layers(${arg_NAME} FALSE ${arg_DEPS})
  if(NOT TESSERA_NVCC)
    return()
  endif()
  _tessera_nvcc_objects(objects ${arg_NAME} ${arg_SRCS})
  add_custom_target(${arg_NAME} DEPENDS ${objects})
  if(NOT TESSERA_CUDA STREQUAL "ON")
    return()
  endif()
  set(target tessera_${arg_NAME})
  add_library(${target} STATIC ${objects})
  add_dependencies(${target} ${arg_NAME})
  set_target_properties(${target} PROPERTIES LINKER_LANGUAGE CXX)
  target_link_libraries(${target} PUBLIC ${arg_DEPS} "${TESSERA_CUDART}" Threads::Threads dl rt)
  add_library(tessera::${arg_NAME} ALIAS ${target})
  _tessera_folder(folder)
  set_property(GLOBAL PROPERTY TESSERA_FOLDER_${arg_NAME} "${folder}")
endfunction()

# tessera_gpu_test(NAME n SRCS s... DEPS d... [CUDA]), or (NAME n COMMAND c...): where TESSERA_CUDA=ON, a test that needs a GPU; CUDA: nvcc
# compiles it. Its label is gpu. Without a device it says "skipped: no device", and counts as skipped.
function(tessera_gpu_test)
  cmake_parse_arguments(arg "CUDA" "NAME" "SRCS;DEPS;COMMAND" ${ARGN})
  if(NOT TESSERA_CUDA STREQUAL "ON")
    return()
  endif()
  if(arg_COMMAND)
    tessera_script_test(NAME ${arg_NAME} COMMAND ${arg_COMMAND} LABELS gpu TIMEOUT 1800)
  else()
    set(sources ${arg_SRCS})
    if(arg_CUDA)
      _tessera_nvcc_objects(sources ${arg_NAME} ${arg_SRCS})
    endif()
    tessera_cc_test(NAME ${arg_NAME} SRCS ${sources} DEPS ${arg_DEPS} LABELS gpu TIMEOUT 1800)
    set_target_properties(${arg_NAME} PROPERTIES LINKER_LANGUAGE CXX)
  endif()
  set_tests_properties(${arg_NAME} PROPERTIES SKIP_REGULAR_EXPRESSION "skipped: no device")
endfunction()

# tessera_proto_library(NAME n PROTOS p... DEPS d...): messages and gRPC stubs, generated into build/.
# Its headers are included as "<folder>/<file>.pb.h", only by *_service.*, *_client.* and *_convert.*.
function(tessera_proto_library)
  cmake_parse_arguments(arg "" "NAME" "PROTOS;DEPS" ${ARGN})
  _tessera_check_layers(${arg_NAME} FALSE ${arg_DEPS})
  _tessera_folder(folder)
  set(out "${PROJECT_BINARY_DIR}/generated")
  set(sources "")
  foreach(file IN LISTS arg_PROTOS)
    string(REGEX REPLACE "\\.proto$" "" stem "${file}")
    set(base "${out}/${folder}/${stem}")
    file(MAKE_DIRECTORY "${out}/${folder}")
    add_custom_command(
      OUTPUT "${base}.pb.cc" "${base}.pb.h" "${base}.grpc.pb.cc" "${base}.grpc.pb.h"
      COMMAND protobuf::protoc "--proto_path=${PROJECT_SOURCE_DIR}" "--cpp_out=${out}"
              "--grpc_out=${out}" "--plugin=protoc-gen-grpc=$<TARGET_FILE:gRPC::grpc_cpp_plugin>"
              "${folder}/${file}"
      WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}"
      DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/${file}")
    list(APPEND sources "${base}.pb.cc" "${base}.grpc.pb.cc")
  endforeach()
  set(target tessera_${arg_NAME})
  add_library(${target} STATIC ${sources})
  target_include_directories(${target} SYSTEM PUBLIC "${out}")
  target_link_libraries(${target} PUBLIC protobuf::libprotobuf gRPC::grpc++ ${arg_DEPS})
  target_compile_options(${target} PRIVATE -w)
  add_library(tessera::${arg_NAME} ALIAS ${target})
  set_property(GLOBAL PROPERTY TESSERA_FOLDER_${arg_NAME} "${folder}")
endfunction()

# tessera_embedded_files(NAME n FUNCTION f FILES text files...): a library that holds the files. Its header
# <n>.h, beside them, declares std::span<const EmbeddedFile> f() in the namespace tessera.
function(tessera_embedded_files)
  cmake_parse_arguments(arg "" "NAME;FUNCTION" "FILES" ${ARGN})
  _tessera_folder(folder)
  set(out "${PROJECT_BINARY_DIR}/generated")
  set(header "${folder}/${arg_NAME}.h")
  list(TRANSFORM arg_FILES PREPEND "${CMAKE_CURRENT_SOURCE_DIR}/")
  string(REPLACE ";" "|" files "${arg_FILES}")
  set(script "${PROJECT_SOURCE_DIR}/cmake/EmbedFiles.cmake")
  add_custom_command(
    OUTPUT "${out}/${folder}/${arg_NAME}.cc"
    COMMAND ${CMAKE_COMMAND} "-DOUT=${out}/${folder}/${arg_NAME}.cc" "-DHEADER=${header}"
            "-DFUNCTION=${arg_FUNCTION}" "-DFILES=${files}" -P "${script}"
    DEPENDS ${arg_FILES} "${script}" VERBATIM)
  set(target tessera_${arg_NAME})
  add_library(${target} STATIC "${out}/${folder}/${arg_NAME}.cc")
  _tessera_common_settings(${target})
  target_link_libraries(${target} PUBLIC tessera::embedded_file)
  add_library(tessera::${arg_NAME} ALIAS ${target})
  set_property(GLOBAL PROPERTY TESSERA_FOLDER_${arg_NAME} "${folder}")
endfunction()

# tessera_third_party_library(NAME n SRCS s... INCLUDES dirs... DEFINES d... DEPS what it calls...): a library whose sources `./dev setup`
# has put into build/third_party. Warnings are its authors' business; its headers are system headers, and it is compiled as the C++17
# that it is written in: clang 14 cannot compile it as C++20.
function(tessera_third_party_library)
  cmake_parse_arguments(arg "" "NAME" "SRCS;INCLUDES;DEFINES;DEPS" ${ARGN})
  set(target tessera_${arg_NAME})
  add_library(${target} STATIC ${arg_SRCS})
  target_include_directories(${target} SYSTEM PUBLIC ${arg_INCLUDES})
  target_compile_definitions(${target} PUBLIC ${arg_DEFINES})
  target_link_libraries(${target} PUBLIC ${arg_DEPS})
  set_target_properties(${target} PROPERTIES CXX_STANDARD 17)
  # Without debug information: its templates would double the binary.
  target_compile_options(${target} PRIVATE -w -g0)
  add_library(${arg_NAME}::${arg_NAME} ALIAS ${target})
endfunction()
