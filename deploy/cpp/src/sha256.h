// SHA-256 as FIPS 180-4 defines it: what a manifest holds files to. A dependency less, and files are hashed once.
#ifndef SKR_SRC_SHA256_H
#define SKR_SRC_SHA256_H

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace skr {

class Sha256 {
 public:
  void update(const void *data, std::size_t bytes);
  // 64 lower-case hexadecimal digits; nothing may be added afterwards.
  std::string hex();

 private:
  void block(const std::uint8_t *bytes);

  std::array<std::uint32_t, 8> state_{
      0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::uint8_t, 64> pending_{};
  std::size_t held_ = 0;
  std::uint64_t total_ = 0;
};

std::string sha256(std::string_view data);

}  // namespace skr
#endif
