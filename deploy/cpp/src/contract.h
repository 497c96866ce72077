// What `contract.json` says, as far as a runtime needs it.
#ifndef SKR_SRC_CONTRACT_H
#define SKR_SRC_CONTRACT_H

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace skr {

using Colour = std::array<std::uint8_t, 3>;

struct Size {
  std::int64_t height = 0, width = 0;
};

inline bool operator==(const Size &a, const Size &b) { return a.height == b.height && a.width == b.width; }
inline bool operator!=(const Size &a, const Size &b) { return !(a == b); }

struct Contract {
  Size size;  // of the model's input
  std::vector<std::string> classes;
  std::vector<Colour> palette;  // at most one for each class
  std::uint8_t ignore = 0;
  bool trained = false;
  bool letterbox = false;
  Colour pad{};
};

// Throws `Failure`: damaged where it does not say what it must, unsupported where the model gives no label map of bytes.
Contract read_contract(std::string_view text, std::string_view where);

}  // namespace skr
#endif
