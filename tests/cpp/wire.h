// Messages of protobuf by hand, for models that no exporter would write.
#ifndef SEARCHKIT_TESTS_WIRE_H
#define SEARCHKIT_TESTS_WIRE_H

#include <cstdint>
#include <string>

#include "protobuf_wire.h"

namespace wire {

inline std::string varint(std::uint64_t value) {
  std::string result;
  for (; value >= 0x80; value >>= 7) result += static_cast<char>(value | 0x80U);
  return result + static_cast<char>(value);
}

inline std::string number(unsigned field, std::uint64_t value) {
  std::string result;
  skr::put_number(result, field, value);
  return result;
}

inline std::string bytes(unsigned field, const std::string &content) {
  std::string result;
  skr::put_bytes(result, field, content);
  return result;
}

}  // namespace wire
#endif
