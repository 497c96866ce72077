// Messages of protobuf, field by field, as they lie in memory; and fields written.
// Format: https://protobuf.dev/programming-guides/encoding.
#ifndef SKR_SRC_PROTOBUF_WIRE_H
#define SKR_SRC_PROTOBUF_WIRE_H

#include <cstdint>
#include <string>
#include <string_view>

namespace skr {

enum WireType { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

struct Field {
  std::uint32_t number = 0;
  std::uint32_t wire = 0;
  std::uint64_t value = 0;  // of a number
  std::string_view bytes;   // of all else
  std::string_view whole;   // its key and its content, as they are written
};

// Reads one model's messages. How many fields it reads in all is bounded, and so is its time.
class WireReader {
 public:
  // `where` is named in refusals.
  explicit WireReader(std::string_view where) : where_(where) {}

  // Takes a field from the front of a message. Throws `Failure` (damaged).
  Field next(std::string_view &message);

  // Calls `visit` with each field of a message. Throws `Failure` (damaged).
  template <typename Visit>
  void each(std::string_view message, const Visit &visit) {
    while (!message.empty()) visit(next(message));
  }

  // Takes a number from the front. Throws `Failure` (damaged).
  std::uint64_t varint(std::string_view &data) const;

  [[noreturn]] void refuse(const std::string &problem) const;

 private:
  std::string_view where_;
  std::size_t fields_ = 0;
};

// A field, appended to a message.
void put_number(std::string &message, std::uint32_t field, std::uint64_t value);
void put_bytes(std::string &message, std::uint32_t field, std::string_view content);

}  // namespace skr
#endif
