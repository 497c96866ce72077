#include "json.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "error.h"

namespace skr::json {
namespace {

struct Span {
  std::uint32_t first, last;
};

// Control characters, and the invisible marks that turn or break a line of text.
constexpr Span kRefused[] = {{0x00, 0x1f},     {0x7f, 0x9f},     {0x61c, 0x61c},  {0x200e, 0x200f},
                             {0x2028, 0x202e}, {0x2066, 0x2069}, {0xfeff, 0xfeff}};

constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }

void append_utf8(std::string &out, std::uint32_t code) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80U | (code >> shift & 0x3fU)); };
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xc0U | code >> 6), tail(0);
  } else if (code < 0x10000) {
    out += static_cast<char>(0xe0U | code >> 12), tail(6), tail(0);
  } else {
    out += static_cast<char>(0xf0U | code >> 18), tail(12), tail(6), tail(0);
  }
}

// The code point at `at`, which is moved behind it; false where these bytes are no UTF-8.
bool next_code(std::string_view text, std::size_t &at, std::uint32_t &code) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const std::uint8_t head = byte(at);
  const std::size_t more = head < 0x80 ? 0 : head >> 5 == 6 ? 1 : head >> 4 == 14 ? 2 : head >> 3 == 30 ? 3 : 4;
  if (more == 4 || at + more >= text.size()) return false;
  code = more == 0 ? head : head & (0x3fU >> more);
  for (std::size_t i = 1; i <= more; ++i) {
    if (byte(at + i) >> 6 != 2) return false;
    code = code << 6 | (byte(at + i) & 0x3fU);
  }
  constexpr std::uint32_t kLeast[] = {0, 0x80, 0x800, 0x10000};
  at += more + 1;
  return code >= kLeast[more] && code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff);
}

class Parser {
 public:
  Parser(std::string_view text, std::string_view where) : text_(text), where_(where) {}

  Value document() {
    Value result = value(0);
    skip_space();
    if (at_ != text_.size()) refuse("holds more than one value");
    return result;
  }

 private:
  [[noreturn]] void refuse(const char *problem) const {
    damaged("not valid JSON: " + std::string(problem) + " at byte " + std::to_string(at_), where_);
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  void skip_space() {
    while (at_ < text_.size() && std::strchr(" \t\n\r", text_[at_]) && text_[at_] != '\0') ++at_;
  }

  bool take(char wanted) {
    skip_space();
    if (peek() != wanted || at_ >= text_.size()) return false;
    ++at_;
    return true;
  }

  Value value(int depth) {
    if (++count_ > kMaxValues) refuse("too many values");
    skip_space();
    Value result;
    if (peek() == '{') {
      object(result, depth + 1);
    } else if (peek() == '[') {
      list(result, depth + 1);
    } else if (peek() == '"') {
      result.kind = Kind::kString;
      result.text = string();
    } else if (peek() == '-' || is_digit(peek())) {
      number(result);
    } else {
      word(result);
    }
    return result;
  }

  void enter(int depth) {
    if (depth > kMaxDepth) refuse("nested too deeply");
    ++at_;
  }

  void object(Value &result, int depth) {
    enter(depth);
    result.kind = Kind::kObject;
    if (take('}')) return;
    do {
      skip_space();
      if (peek() != '"') refuse("a key is missing");
      std::string key = string();
      if (!take(':')) refuse("a colon is missing");
      result.members.emplace_back(std::move(key), value(depth));
    } while (take(','));
    if (!take('}')) refuse("a comma or a closing brace is missing");
    auto &members = result.members;
    std::sort(members.begin(), members.end(), [](const auto &a, const auto &b) { return a.first < b.first; });
    const auto twin = std::adjacent_find(members.begin(), members.end(),
                                         [](const auto &a, const auto &b) { return a.first == b.first; });
    if (twin != members.end()) refuse("duplicate key in the object that ends");
  }

  void list(Value &result, int depth) {
    enter(depth);
    result.kind = Kind::kList;
    if (take(']')) return;
    do {
      result.items.push_back(value(depth));
    } while (take(','));
    if (!take(']')) refuse("a comma or a closing bracket is missing");
  }

  void word(Value &result) {
    const auto is = [&](std::string_view name) { return text_.substr(at_, name.size()) == name; };
    const std::string_view name = is("true") ? "true" : is("false") ? "false" : is("null") ? "null" : "";
    if (name.empty()) refuse("a value is missing");
    at_ += name.size();
    if (name == "null") return;
    result.kind = Kind::kBool;
    result.boolean = name == "true";
  }

  void digits() {
    if (!is_digit(peek())) refuse("a digit is missing");
    while (is_digit(peek())) ++at_;
  }

  void number(Value &result) {
    const std::size_t start = at_;
    if (peek() == '-') ++at_;
    const std::size_t head = at_;
    digits();
    const std::size_t whole = at_;
    if (text_[head] == '0' && whole - head > 1) refuse("a leading zero");
    if (peek() == '.') ++at_, digits();
    if (peek() == 'e' || peek() == 'E') {
      ++at_;
      if (peek() == '+' || peek() == '-') ++at_;
      digits();
    }
    const char *first = text_.data() + start, *last = text_.data() + at_;
    if (at_ == whole) return integer(result, std::string_view(first, at_ - start));
    result.kind = Kind::kReal;
    if (std::from_chars(first, last, result.real).ec != std::errc()) refuse("number out of range");
  }

  void integer(Value &result, std::string_view spelled) {
    result.kind = Kind::kInteger;
    if (spelled == "-0") refuse("negative zero");
    const bool fits = spelled.size() <= 12;
    if (fits) std::from_chars(spelled.data(), spelled.data() + spelled.size(), result.integer);
    if (!fits || result.integer > kMaxInteger || result.integer < -kMaxInteger) refuse("integer out of range");
  }

  std::uint32_t hex4() {
    std::uint32_t code = 0;
    const std::string_view spelled = text_.substr(std::min(at_, text_.size()), 4);
    const auto end = spelled.data() + spelled.size();
    if (spelled.size() < 4 || std::from_chars(spelled.data(), end, code, 16).ptr != end) refuse("a broken escape");
    at_ += 4;
    return code;
  }

  std::uint32_t escape() {
    constexpr std::string_view kLetters = "\"\\/bfnrt";
    constexpr std::string_view kMeant = "\"\\/\b\f\n\r\t";
    const char letter = peek();
    ++at_;
    if (letter != 'u') {
      const std::size_t found = kLetters.find(letter);
      if (found == std::string_view::npos || at_ > text_.size()) refuse("an unknown escape");
      return static_cast<std::uint8_t>(kMeant[found]);
    }
    const std::uint32_t high = hex4();
    if (high < 0xd800 || high > 0xdfff) return high;
    if (high > 0xdbff || text_.substr(at_, 2) != "\\u") refuse("a lone surrogate");
    at_ += 2;
    const std::uint32_t low = hex4();
    if (low < 0xdc00 || low > 0xdfff) refuse("a lone surrogate");
    return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
  }

  std::string string() {
    ++at_;
    std::string result;
    while (peek() != '"') {
      if (at_ >= text_.size()) refuse("a string without an end");
      std::uint32_t code = 0;
      if (text_[at_] == '\\') {
        ++at_;
        code = escape();
      } else if (!next_code(text_, at_, code)) {
        refuse("not UTF-8");
      }
      for (const Span &span : kRefused) {
        if (code >= span.first && code <= span.last) refuse("a string holds a control character");
      }
      append_utf8(result, code);
      if (result.size() > kMaxStringBytes) refuse("string too long");
    }
    ++at_;
    return result;
  }

  std::string_view text_, where_;
  std::size_t at_ = 0;
  int count_ = 0;
};

void quote(std::string &out, std::string_view text) {
  out += '"';
  for (std::size_t at = 0; at < text.size();) {
    std::uint32_t code = 0;
    next_code(text, at, code);
    const auto unit = [&](std::uint32_t value) {
      constexpr char kDigits[] = "0123456789abcdef";
      out += "\\u";
      for (int shift = 12; shift >= 0; shift -= 4) out += kDigits[value >> shift & 15U];
    };
    if (code == '"' || code == '\\') {
      out += '\\';
      out += static_cast<char>(code);
    } else if (code < 0x80) {
      out += static_cast<char>(code);
    } else if (code < 0x10000) {
      unit(code);
    } else {
      unit(0xd800 + ((code - 0x10000) >> 10));
      unit(0xdc00 + ((code - 0x10000) & 0x3ffU));
    }
  }
  out += '"';
}

void write(std::string &out, const Value &value, std::string_view without, std::string_view where) {
  switch (value.kind) {
    case Kind::kNull: out += "null"; return;
    case Kind::kBool: out += value.boolean ? "true" : "false"; return;
    case Kind::kInteger: out += std::to_string(value.integer); return;
    case Kind::kString: quote(out, value.text); return;
    case Kind::kReal: damaged("holds a number that is no integer", where);
    case Kind::kList: {
      out += '[';
      for (const Value &item : value.items) {
        if (&item != value.items.data()) out += ',';
        write(out, item, {}, where);
      }
      out += ']';
      return;
    }
    case Kind::kObject: break;
  }
  out += '{';
  bool first = true;
  for (const auto &[key, member] : value.members) {
    if (!without.empty() && key == without) continue;
    if (!first) out += ',';
    first = false;
    quote(out, key);
    out += ':';
    write(out, member, {}, where);
  }
  out += '}';
}

}  // namespace

const Value *Value::find(std::string_view key) const {
  const auto found = std::lower_bound(members.begin(), members.end(), key,
                                      [](const auto &member, std::string_view wanted) { return member.first < wanted; });
  return found != members.end() && found->first == key ? &found->second : nullptr;
}

Value parse(std::string_view text, std::string_view where) {
  if (text.empty()) damaged("file is empty", where);
  if (text.size() > kMaxBytes) damaged("file too long", where);
  return Parser(text, where).document();
}

std::string canonical(const Value &value, std::string_view without, std::string_view where) {
  std::string out;
  write(out, value, without, where);
  return out;
}

}  // namespace skr::json
