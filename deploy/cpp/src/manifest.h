// The manifest of a bundle, schema 2, as `deploy/manifest.py` writes it.
#ifndef SKR_SRC_MANIFEST_H
#define SKR_SRC_MANIFEST_H

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace skr {

constexpr const char *kManifest = "manifest.json";
constexpr std::int64_t kSchema = 2;

struct Entry {
  std::uint64_t bytes = 0;
  std::string sha256;
};

using Entries = std::map<std::string, Entry>;

// Whether a bundle may hold a file of this name. No such name leads out of the bundle's folder.
bool may_hold(std::string_view name);

// The entries of a manifest. Throws `Failure` (damaged): of another schema, not sealed by its own hash, or not the
// manifest of a bundle.
Entries read_manifest(std::string_view text, std::string_view where);

}  // namespace skr
#endif
