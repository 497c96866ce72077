#include <cmath>
#include <string>

#include "check.h"
#include "json.h"

using skr::json::Kind;
using skr::json::parse;
using skr::json::Value;

namespace {

std::string spelled(const std::string &text) { return skr::json::canonical(parse(text, "f"), "", "f"); }

void test_what_passes() {
  const Value tree = parse(R"( {"b": [1, -2, 0.5, 1e2, true, null], "a": "x\u00e9\ud83d\ude00\/"} )", "f");
  CHECK(tree.kind == Kind::kObject && tree.members.size() == 2);
  CHECK(tree.find("a")->text == "x\xc3\xa9\xf0\x9f\x98\x80/");
  const Value &list = *tree.find("b");
  CHECK(list.items[1].integer == -2);
  CHECK(std::abs(list.items[2].real - 0.5) < 1e-12 && std::abs(list.items[3].real - 100) < 1e-12);
  CHECK(list.items[4].boolean && list.items[5].kind == Kind::kNull);
  CHECK(tree.find("c") == nullptr && list.find("a") == nullptr);
  CHECK(parse("2147483648", "f").integer == 2147483648);
}

void test_canonical() {
  CHECK(spelled(R"({"b" : [ 1, true , null], "a":{}, "B": []})") == R"({"B":[],"a":{},"b":[1,true,null]})");
  CHECK(spelled("\"\xc3\xa9\xf0\x9f\x98\x80\\\\\\\"\"") == R"("\u00e9\ud83d\ude00\\\"")");
  const Value sealed = parse(R"({"sha256": 1, "a": {"sha256": 2}})", "f");
  CHECK(skr::json::canonical(sealed, "sha256", "f") == R"({"a":{"sha256":2}})");
  CHECK_REFUSED(spelled("[0.5]"), "no integer");
}

void test_what_is_refused() {
  for (const char *text : {"", " ", "{", "[1,]", "[1 2]", "{\"a\":}", "{\"a\" 1}", "{a:1}", "{\"a\":1,}", "nul", "+1", ".5",
                           "1.", "1e", "01", "-", "--1", "1 2", "[]]", "'a'", "NaN", "Infinity", "\"a", "\"\\", "\"\\u12",
                           "\"\\x\"", "\"\\u12g4\"", "-01"}) {
    CHECK(!check::refusal([&] { parse(text, "f"); }).empty());
  }
  CHECK_REFUSED(parse("-0", "f"), "negative zero");
  CHECK_REFUSED(parse("2147483649", "f"), "out of range");
  CHECK_REFUSED(parse("99999999999999999999999999", "f"), "out of range");
  CHECK_REFUSED(parse("1e999", "f"), "out of range");
  CHECK_REFUSED(parse(R"({"a":1,"b":2,"a":3})", "f"), "duplicate key");
  CHECK_REFUSED(parse("\"\x01\"", "f"), "control character");
  CHECK_REFUSED(parse(R"("\u202e")", "f"), "control character");
  CHECK_REFUSED(parse(std::string("\"a\0b\"", 5), "f"), "control character");
  CHECK_REFUSED(parse(R"("\ud800")", "f"), "surrogate");
  CHECK_REFUSED(parse(R"("\udc00\ud800")", "f"), "surrogate");
  CHECK_REFUSED(parse(R"("\ud800\u0041")", "f"), "surrogate");
  for (const char *text : {"\"\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xc3\"", "\"\xc3"}) {
    CHECK_REFUSED(parse(text, "f"), "UTF-8");
  }
  CHECK_REFUSED(parse("\"" + std::string(257, 'a') + "\"", "f"), "too long");
  CHECK_REFUSED(parse(std::string(33, '[') + std::string(33, ']'), "f"), "nested");
  CHECK(parse(std::string(32, '[') + std::string(32, ']'), "f").kind == Kind::kList);
  CHECK_REFUSED(parse(std::string(1'000'000, '['), "f"), "nested");
  CHECK_REFUSED(parse(std::string((1 << 20) + 1, ' '), "f"), "too long");
  std::string many = "[0";
  for (int i = 0; i < 100'000; ++i) many += ",0";
  CHECK_REFUSED(parse(many + "]", "f"), "too many values");
}

}  // namespace

void test_json() {
  test_what_passes();
  test_canonical();
  test_what_is_refused();
}
