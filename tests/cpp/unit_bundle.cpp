#include <string>

#include "check.h"
#include "contract.h"
#include "manifest.h"
#include "sha256.h"

namespace {

const std::string kZeros(64, '0');

// From FIPS 180-4's own examples.
void test_sha256() {
  CHECK(skr::sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(skr::sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(skr::sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(skr::sha256(std::string(1'000'000, 'a')) ==
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  for (std::size_t length = 0; length < 200; ++length) {
    const std::string text(length, 'x');
    skr::Sha256 pieces;
    for (std::size_t at = 0; at < length; at += 7) pieces.update(text.data() + at, std::min<std::size_t>(7, length - at));
    CHECK(pieces.hex() == skr::sha256(text));
  }
}

void test_names() {
  for (const char *name : {"model.onnx", "README.md", "engines/a.engine", "engines/a", "stacks/triton/ssr/1/model.onnx",
                           "stacks/a-1/b/c/d/e/f", "precision.json"}) {
    CHECK(skr::may_hold(name));
  }
  for (const char *name : {"", ".", "..", "/", "/etc/passwd", "../model.onnx", "engines/", "engines/..", "engines/../a",
                           "engines/.a", "engines/a.", "engines/a/b", "engines//a", "stacks/a", "stacks/A/b",
                           "stacks/../b", "stacks/a/..", "stacks/a/b/", "stacks/a//b", "stacks/a/b/c/d/e/f/g",
                           "model.onnx/", "manifest.json", "model.onnx.data", "stacks/a/b\\c"}) {
    CHECK(!skr::may_hold(name));
  }
  CHECK(!skr::may_hold(std::string("model.onnx\0", 11)));
  CHECK(skr::may_hold("engines/" + std::string(64, 'a')) && !skr::may_hold("engines/" + std::string(65, 'a')));
}

std::string sealed(const std::string &files, const std::string &schema = "2") {
  const std::string inside = "\"files\":{" + files + "},\"schema\":" + schema + ",\"searchkit\":\"0\"";
  return "{" + inside + ",\"sha256\":\"" + skr::sha256("{" + inside + "}") + "\"}";
}

std::string entry(const std::string &name, const std::string &bytes = "1") {
  return "\"" + name + "\":{\"bytes\":" + bytes + ",\"sha256\":\"" + kZeros + "\"}";
}

// In the order of their names, as a sealed manifest has them.
std::string all(const std::string &extra = "") {
  std::string text = entry("README.md");
  for (const char *name : {"contract.json", "golden.safetensors", "labels.txt", "model.onnx", "network.json",
                           "palette.csv"}) {
    text += "," + entry(name);
  }
  return text + extra + "," + entry("verification.json") + "," + entry("weights.safetensors");
}

skr::Entries read(const std::string &text) { return skr::read_manifest(text, "m"); }

void test_manifest() {
  CHECK(read(sealed(all())).size() == 9);
  CHECK(read(sealed(all())).at("model.onnx").sha256 == kZeros);
  CHECK_REFUSED(read(sealed(all(), "1")), "schema");
  CHECK_REFUSED(read(sealed(all(), "3")), "schema");
  CHECK_REFUSED(read(sealed(all(), "true")), "schema");
  CHECK_REFUSED(read("[]"), "schema");
  CHECK_REFUSED(read("{\"schema\": 2}"), "own SHA-256");
  std::string flipped = sealed(all());
  flipped[flipped.find(kZeros)] = '1';
  CHECK_REFUSED(read(flipped), "own SHA-256");
  CHECK_REFUSED(read(sealed(entry("README.md"))), "lacks");
  CHECK_REFUSED(read(sealed(all("," + entry("stacks/../a")))), "which no bundle does");
  CHECK_REFUSED(read(sealed(all("," + entry("stacks/a/B") + "," + entry("stacks/a/b")))), "twice");
  CHECK_REFUSED(read(sealed(all("," + entry("stacks/a/b") + "," + entry("stacks/a/b/c")))), "twice");
  CHECK_REFUSED(read(sealed(all("," + entry("stacks/a/b", "2147483648") + "," + entry("stacks/a/c", "2147483648")))),
                "too large");
  CHECK_REFUSED(read(sealed(all("," + entry("stacks/a/b", "-1")))), "size and SHA-256");
  CHECK_REFUSED(read(sealed(all("," + entry("stacks/a/b", "9999999999")))), "out of range");
  CHECK_REFUSED(read(sealed(all(",\"stacks/a/b\":{\"bytes\":1,\"sha256\":\"A\"}"))), "size and SHA-256");
}

std::string contract(const std::string &height, const std::string &resize, const std::string &io = "labels",
                     const std::string &classes = "\"a\",\"b\"") {
  return "{\"io\":\"" + io + "\",\"resolution\":{\"height_px\":" + height +
         ",\"width_px\":96},\"weights\":{\"trained\":true},\"classes\":[" + classes +
         "],\"palette\":[[1,2,3]],\"ignore\":255,\"resize\":" + resize + "}";
}

void test_contract() {
  const std::string stretch = "{\"rule\":\"stretch\"}";
  const auto found = skr::read_contract(contract("64", "{\"rule\":\"letterbox\",\"pad_rgb\":[9,8,7]}"), "c");
  CHECK(found.size.height == 64 && found.size.width == 96 && found.letterbox && found.trained);
  CHECK(found.pad[2] == 7 && found.classes.size() == 2 && found.palette[0][1] == 2 && found.ignore == 255);
  const auto refused = [&](const std::string &text) { return check::refusal([&] { skr::read_contract(text, "c"); }); };
  CHECK(check::contains(refused(contract("64", stretch, "raw")), "--io labels"));
  for (const char *height : {"0", "8193", "-1", "true", "\"64\"", "64.0"}) {
    CHECK(check::contains(refused(contract(height, stretch)), "resolution.height_px"));
  }
  CHECK(check::contains(refused(contract("64", "{\"rule\":\"crop\"}")), "resize.rule"));
  CHECK(check::contains(refused(contract("64", "{\"rule\":\"letterbox\",\"pad_rgb\":[1,2]}")), "pad_rgb"));
  CHECK(check::contains(refused(contract("64", "{\"rule\":\"letterbox\",\"pad_rgb\":[1,2,256]}")), "pad_rgb"));
  CHECK(check::contains(refused(contract("64", stretch, "labels", "")), "classes"));
  CHECK(check::contains(refused("{}"), "lacks io"));
  CHECK(check::contains(refused("[]"), "lacks io"));
}

}  // namespace

void test_bundle() {
  test_sha256();
  test_names();
  test_manifest();
  test_contract();
}
