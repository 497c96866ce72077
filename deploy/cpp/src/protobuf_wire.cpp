#include "protobuf_wire.h"

#include "error.h"

namespace skr {
namespace {

constexpr std::size_t kMaxFields = 2'000'000;

void put_varint(std::string &message, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) message += static_cast<char>(value | 0x80U);
  message += static_cast<char>(value);
}

}  // namespace

void WireReader::refuse(const std::string &problem) const {
  damaged("not a model that searchkit wrote: " + problem, where_);
}

std::uint64_t WireReader::varint(std::string_view &data) const {
  std::uint64_t value = 0;
  for (unsigned shift = 0; shift < 70; shift += 7) {
    if (data.empty()) refuse("it ends inside a number");
    const auto byte = static_cast<std::uint8_t>(data.front());
    data.remove_prefix(1);
    if (shift < 64) value |= std::uint64_t{byte & 0x7fU} << shift;
    if (byte < 0x80) return value;
  }
  refuse("a number of more than ten bytes");
}

Field WireReader::next(std::string_view &message) {
  if (++fields_ > kMaxFields) refuse("too many fields");
  const std::string_view start = message;
  const std::uint64_t key = varint(message);
  Field field;
  if (key >> 3 == 0 || key >> 3 > 1000) refuse("a field without a number");
  field.number = static_cast<std::uint32_t>(key >> 3);
  field.wire = static_cast<std::uint32_t>(key & 7U);
  std::uint64_t length = 0;
  switch (field.wire) {
    case kVarint: field.value = varint(message); break;
    case kFixed64: length = 8; break;
    case kFixed32: length = 4; break;
    case kBytes: length = varint(message); break;
    default: refuse("an unknown wire type");
  }
  if (length > message.size()) refuse("it ends inside a field");
  field.bytes = message.substr(0, static_cast<std::size_t>(length));
  message.remove_prefix(static_cast<std::size_t>(length));
  field.whole = start.substr(0, start.size() - message.size());
  return field;
}

void put_number(std::string &message, std::uint32_t field, std::uint64_t value) {
  put_varint(message, std::uint64_t{field} << 3U);
  put_varint(message, value);
}

void put_bytes(std::string &message, std::uint32_t field, std::string_view content) {
  put_varint(message, std::uint64_t{field} << 3U | kBytes);
  put_varint(message, content.size());
  message += content;
}

}  // namespace skr
