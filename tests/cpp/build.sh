#!/bin/sh
# Builds the C++ runtime with its tests four times: plain; with the address and undefined-behaviour sanitizers; with the
# thread sanitizer; and `pure`, a static library without the native label head. Warnings are errors. The second build has
# the TensorRT option on, so that it is compiled as well.
#
#   build.sh FOLDER PYTHON [ONNXRUNTIME_INCLUDE_DIR]
#
# The library of ONNX Runtime is the one that PYTHON imports; its headers are fetched where no folder of them is named.
set -eu

[ $# -ge 2 ] || { echo "usage: build.sh FOLDER PYTHON [ONNXRUNTIME_INCLUDE_DIR]" >&2; exit 2; }
root=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
for tool in cmake c++ make; do
  command -v "$tool" >/dev/null || { echo "build.sh: $tool is missing; apt-get install cmake g++ make" >&2; exit 1; }
done
headers=${3:-$("$root/deploy/cpp/fetch_headers.sh" "$folder/headers")}
library=$("$2" -c 'import glob, os, onnxruntime
folder = os.path.join(os.path.dirname(onnxruntime.__file__), "capi")
print(glob.glob(os.path.join(folder, "libonnxruntime.so.*"))[0])')

build() {
  kind=$1
  shift
  cmake -S "$root/deploy/cpp" -B "$folder/$kind" -DCMAKE_INSTALL_PREFIX="$folder/$kind/installed" \
    -DONNXRUNTIME_LIBRARY="$library" -DONNXRUNTIME_INCLUDE_DIR="$headers" \
    -DSEARCHKIT_TESTS="$root/tests/cpp" -DSEARCHKIT_WERROR=ON "$@" >"$folder/$kind.log" || { cat "$folder/$kind.log"; exit 1; }
  cmake --build "$folder/$kind" --parallel "$(nproc)" >>"$folder/$kind.log" 2>&1 || { cat "$folder/$kind.log"; exit 1; }
  echo "built $folder/$kind"
}

build plain
build address -DSEARCHKIT_SANITIZE=address -DSEARCHKIT_TENSORRT=ON
build thread -DSEARCHKIT_SANITIZE=thread
build pure -DSEARCHKIT_NATIVE_HEAD=OFF -DBUILD_SHARED_LIBS=OFF
cmake --install "$folder/plain" >>"$folder/plain.log"
