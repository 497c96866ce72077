#!/bin/sh
# Headers of ONNX Runtime's C interface, from Debian's newest package of them, unpacked into a folder of their own.
#
#   fetch_headers.sh FOLDER
#
# Prints the folder of onnxruntime_c_api.h. Nothing is installed and apt's own lists are not touched, so no rights are
# needed; a second call does nothing. The Python wheel has the library but no headers, and the interface is compatible
# backwards: headers that are older than the library are right.
#
#   SEARCHKIT_DEBIAN_MIRROR   another mirror than http://deb.debian.org/debian
#   SEARCHKIT_DEBIAN_SUITE    another suite than sid
set -eu

mirror=${SEARCHKIT_DEBIAN_MIRROR:-http://deb.debian.org/debian}
suite=${SEARCHKIT_DEBIAN_SUITE:-sid}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

give_up() {
  {
    echo "fetch_headers.sh: $1"
    echo "Get ONNX Runtime's headers another way, such as from the archive of a release, and name the folder that holds"
    echo "onnxruntime_c_api.h: make test-cpp ONNXRUNTIME_INCLUDE_DIR=FOLDER"
  } >&2
  exit 1
}

[ $# -eq 1 ] || { echo "usage: fetch_headers.sh FOLDER" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
headers=$folder/usr/include/onnxruntime
if [ -f "$headers/onnxruntime_c_api.h" ]; then
  echo "$headers"
  exit 0
fi

for tool in apt-get dpkg-deb; do
  command -v "$tool" >/dev/null || give_up "there is no $tool here; this needs Debian or a relative of it"
done
[ -f "$keyring" ] || give_up "$keyring is missing; install debian-archive-keyring"

work=$(mktemp -d "$folder/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
echo "deb [signed-by=$keyring] $mirror $suite main" >"$work/sources.list"
apt() {
  apt-get -qq \
    -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=- \
    -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" \
    -o APT::Sandbox::User= -o Acquire::Languages=none -o Acquire::Retries=3 "$@" >&2
}
apt update || give_up "the package list of $suite at $mirror cannot be had"
(cd "$work" && apt download libonnxruntime-dev) || give_up "$suite at $mirror has no libonnxruntime-dev"
dpkg-deb -x "$work"/libonnxruntime-dev_*.deb "$folder"
[ -f "$headers/onnxruntime_c_api.h" ] || give_up "the package does not hold onnxruntime_c_api.h where it did"
echo "$headers"
