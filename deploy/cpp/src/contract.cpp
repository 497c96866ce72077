#include "contract.h"

#include "error.h"
#include "json.h"

namespace skr {
namespace {

constexpr std::size_t kMaxClasses = 255;  // 255 itself stands for "ignore" everywhere
constexpr Colour kGrey = {114, 114, 114};

// A value and where it stands, so that what is missing or wrong can be named.
class Reader {
 public:
  Reader(const json::Value &value, std::string_view where, std::string path = {})
      : value_(value), where_(where), path_(std::move(path)) {}

  Reader member(std::string_view key) const {
    const json::Value *found = value_.find(key);
    if (!found) damaged("not a contract: lacks " + path_ + std::string(key), where_);
    return Reader(*found, where_, path_ + std::string(key) + ".");
  }

  bool has(std::string_view key) const { return value_.find(key) != nullptr; }

  const std::string &text() const { return expect(json::Kind::kString).text; }
  bool boolean() const { return expect(json::Kind::kBool).boolean; }

  std::int64_t integer(std::int64_t lowest, std::int64_t highest) const {
    const std::int64_t value = expect(json::Kind::kInteger).integer;
    if (value < lowest || value > highest) wrong();
    return value;
  }

  std::vector<Reader> list() const {
    std::vector<Reader> result;
    for (const json::Value &item : expect(json::Kind::kList).items) result.emplace_back(item, where_, path_);
    return result;
  }

  Colour colour() const {
    const std::vector<Reader> parts = list();
    Colour result{};
    if (parts.size() != result.size()) wrong();
    for (std::size_t i = 0; i < result.size(); ++i) result[i] = static_cast<std::uint8_t>(parts[i].integer(0, 255));
    return result;
  }

  [[noreturn]] void wrong() const {
    damaged("not a contract: " + path_.substr(0, path_.size() - 1) + " is not what it must be", where_);
  }

 private:
  const json::Value &expect(json::Kind kind) const {
    if (value_.kind != kind) wrong();
    return value_;
  }

  const json::Value &value_;
  std::string_view where_;
  std::string path_;
};

void read_classes(const Reader &tree, Contract &result) {
  for (const Reader &name : tree.member("classes").list()) result.classes.push_back(name.text());
  for (const Reader &colour : tree.member("palette").list()) result.palette.push_back(colour.colour());
  if (result.classes.empty() || result.classes.size() > kMaxClasses) tree.member("classes").wrong();
  if (result.palette.size() > result.classes.size()) tree.member("palette").wrong();
  result.ignore = static_cast<std::uint8_t>(tree.member("ignore").integer(0, 255));
}

void read_resize(const Reader &tree, Contract &result) {
  const std::string &rule = tree.member("rule").text();
  if (rule != "stretch" && rule != "letterbox") tree.member("rule").wrong();
  result.letterbox = rule == "letterbox";
  result.pad = tree.has("pad_rgb") ? tree.member("pad_rgb").colour() : kGrey;
}

}  // namespace

Contract read_contract(std::string_view text, std::string_view where) {
  const json::Value root = json::parse(text, where);
  const Reader tree(root, where);
  const std::string &io = tree.member("io").text();
  // `triton` is the graph of `labels` under another name.
  if (io != "labels" && io != "triton") {
    fail(SKR_UNSUPPORTED, "the model's contract is " + shown(io) + "; export the network with --io labels", where);
  }
  Contract result;
  const Reader size = tree.member("resolution");
  result.size.height = size.member("height_px").integer(1, SKR_MAX_SIDE_PX);
  result.size.width = size.member("width_px").integer(1, SKR_MAX_SIDE_PX);
  read_classes(tree, result);
  read_resize(tree.member("resize"), result);
  result.trained = tree.member("weights").member("trained").boolean();
  return result;
}

}  // namespace skr
