#include "bundle.h"

#include "error.h"
#include "json.h"
#include "sha256.h"

namespace skr {
namespace {

Entries entries_of(const Folder &folder) {
  const std::int64_t bytes = folder.size(kManifest);
  if (bytes < 0) fail(SKR_USAGE, "not a bundle: it has no manifest.json", folder.path());
  if (bytes > static_cast<std::int64_t>(json::kMaxBytes)) damaged("file too long", folder.place(kManifest));
  const std::string text = folder.read(kManifest, static_cast<std::uint64_t>(bytes));
  return read_manifest(text, folder.place(kManifest));
}

}  // namespace

Bundle::Bundle(const std::string &path) : folder_(path), entries_(entries_of(folder_)) {
  check_listing();
  for (const auto &[name, entry] : entries_) {
    if (folder_.sha256(name, entry.bytes) != entry.sha256) {
      damaged("file has another SHA-256 than the manifest says", place(name));
    }
  }
}

// Sizes before hashes: they cost nothing, and a file that claims less than it holds is not read.
void Bundle::check_listing() const {
  const Listing found = folder_.list();
  std::set<std::string> folders;
  for (const auto &[name, entry] : entries_) {
    const auto file = found.files.find(name);
    if (file == found.files.end()) damaged("bundle file does not exist", place(name));
    if (file->second != entry.bytes) damaged("file has another size than the manifest says", place(name));
    for (std::size_t slash = name.find('/'); slash != std::string::npos; slash = name.find('/', slash + 1)) {
      folders.insert(name.substr(0, slash));
    }
  }
  for (const auto &[name, bytes] : found.files) {
    if (name != kManifest && entries_.count(name) == 0) damaged("is not listed in the manifest", place(name));
  }
  for (const std::string &name : found.folders) {
    if (folders.count(name) == 0) damaged("is not listed in the manifest", place(name));
  }
}

std::string Bundle::read(const std::string &name) const {
  const Entry &entry = entries_.at(name);
  std::string data = folder_.read(name, entry.bytes);
  if (sha256(data) != entry.sha256) damaged("file has another SHA-256 than the manifest says", place(name));
  return data;
}

}  // namespace skr
