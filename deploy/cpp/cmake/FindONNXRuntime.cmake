# ONNX Runtime's C interface: the target ONNXRuntime::ONNXRuntime.
#
# ONNXRUNTIME_INCLUDE_DIR: the folder of onnxruntime_c_api.h; `fetch_headers.sh` makes one.
# ONNXRUNTIME_LIBRARY: the shared library. The one inside the Python wheel will do: it lies in onnxruntime/capi and has
#   its full version for a name, so a link with the name that the loader looks for is made in the build folder.
find_path(ONNXRUNTIME_INCLUDE_DIR onnxruntime_c_api.h PATH_SUFFIXES onnxruntime onnxruntime/core/session)
find_library(ONNXRUNTIME_LIBRARY onnxruntime)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  ONNXRuntime
  REQUIRED_VARS ONNXRUNTIME_LIBRARY ONNXRUNTIME_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "name them with -DONNXRUNTIME_LIBRARY=FILE and -DONNXRUNTIME_INCLUDE_DIR=FOLDER")

if(ONNXRuntime_FOUND AND NOT TARGET ONNXRuntime::ONNXRuntime)
  set(_onnxruntime_file "${ONNXRUNTIME_LIBRARY}")
  get_filename_component(_onnxruntime_name "${ONNXRUNTIME_LIBRARY}" NAME)
  if(_onnxruntime_name MATCHES "^libonnxruntime\\.so\\.([0-9]+)\\..+$")
    set(_onnxruntime_name "libonnxruntime.so.${CMAKE_MATCH_1}")
    set(_onnxruntime_file "${CMAKE_BINARY_DIR}/onnxruntime/${_onnxruntime_name}")
    file(MAKE_DIRECTORY "${CMAKE_BINARY_DIR}/onnxruntime")
    file(CREATE_LINK "${ONNXRUNTIME_LIBRARY}" "${_onnxruntime_file}" SYMBOLIC)
  endif()
  add_library(ONNXRuntime::ONNXRuntime SHARED IMPORTED)
  set_target_properties(
    ONNXRuntime::ONNXRuntime
    PROPERTIES IMPORTED_LOCATION "${_onnxruntime_file}" INTERFACE_INCLUDE_DIRECTORIES "${ONNXRUNTIME_INCLUDE_DIR}")
  mark_as_advanced(ONNXRUNTIME_INCLUDE_DIR ONNXRUNTIME_LIBRARY)
endif()
