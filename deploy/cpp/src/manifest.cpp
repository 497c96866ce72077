#include "manifest.h"

#include <algorithm>
#include <set>

#include "error.h"
#include "json.h"
#include "sha256.h"

namespace skr {
namespace {

constexpr std::size_t kMaxFiles = 64;
constexpr std::uint64_t kMaxBundleBytes = std::uint64_t{4} << 30;
constexpr std::string_view kRequired[] = {
    "model.onnx",         "network.json", "weights.safetensors", "contract.json", "verification.json",
    "golden.safetensors", "labels.txt",   "palette.csv",         "README.md"};
constexpr std::string_view kOptional[] = {"precision.json", "lowering.json", "engines.json"};
constexpr std::size_t kMaxPart = 64, kMaxStack = 32, kMaxStackParts = 5;

bool is_alphanumeric(char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }

// A name between two slashes: no dot in front, so neither `.` nor `..`, and none behind.
bool is_part(std::string_view part) {
  if (part.empty() || part.size() > kMaxPart || !is_alphanumeric(part.front()) || part.back() == '.') return false;
  return std::all_of(part.begin(), part.end(),
                     [](char c) { return is_alphanumeric(c) || c == '_' || c == '.' || c == '-'; });
}

bool is_stack(std::string_view part) {
  const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; };
  return !part.empty() && part.size() <= kMaxStack && std::all_of(part.begin(), part.end(), plain);
}

bool is_stack_file(std::string_view rest) {
  std::size_t slash = rest.find('/');
  if (slash == std::string_view::npos || !is_stack(rest.substr(0, slash))) return false;
  for (std::size_t parts = 1; parts <= kMaxStackParts; ++parts) {
    rest.remove_prefix(slash + 1);
    slash = rest.find('/');
    if (!is_part(rest.substr(0, slash))) return false;
    if (slash == std::string_view::npos) return true;
  }
  return false;
}

bool is_entry(const json::Value &entry) {
  const json::Value *bytes = entry.find("bytes"), *digest = entry.find("sha256");
  if (!bytes || bytes->kind != json::Kind::kInteger || bytes->integer < 0) return false;
  if (!digest || digest->kind != json::Kind::kString || digest->text.size() != 64) return false;
  const auto hexadecimal = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  return std::all_of(digest->text.begin(), digest->text.end(), hexadecimal);
}

std::string folded(std::string_view name) {
  std::string result(name);
  for (char &c : result) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
  return result;
}

// On some file systems two names that differ in case are one file; and a file's name may not be a folder's as well.
bool has_twins(const Entries &entries) {
  std::set<std::string> names, folders;
  for (const auto &[name, entry] : entries) {
    const std::string plain = folded(name);
    if (!names.insert(plain).second) return true;
    for (std::size_t slash = plain.find('/'); slash != std::string::npos; slash = plain.find('/', slash + 1)) {
      folders.insert(plain.substr(0, slash));
    }
  }
  return std::any_of(folders.begin(), folders.end(), [&](const std::string &name) { return names.count(name) > 0; });
}

void check_names(const Entries &entries, std::string_view where) {
  for (const std::string_view name : kRequired) {
    if (entries.count(std::string(name)) == 0) damaged("not a manifest: lacks " + std::string(name), where);
  }
  for (const auto &[name, entry] : entries) {
    if (!may_hold(name)) damaged("not a manifest: holds " + shown(name) + ", which no bundle does", where);
  }
  if (entries.size() > kMaxFiles) damaged("not a manifest: holds too many files", where);
  if (has_twins(entries)) damaged("not a manifest: holds a file twice", where);
}

void check_seal(const json::Value &tree, std::string_view where) {
  const json::Value *schema = tree.find("schema");
  if (!schema || schema->kind != json::Kind::kInteger || schema->integer != kSchema) {
    damaged("unknown manifest schema; this runtime reads schema " + std::to_string(kSchema), where);
  }
  const json::Value *seal = tree.find("sha256");
  const std::string found = sha256(json::canonical(tree, "sha256", where));
  if (!seal || seal->kind != json::Kind::kString || seal->text != found) {
    damaged("manifest does not match its own SHA-256", where);
  }
}

}  // namespace

bool may_hold(std::string_view name) {
  const auto is = [&](std::string_view other) { return other == name; };
  if (std::any_of(std::begin(kRequired), std::end(kRequired), is)) return true;
  if (std::any_of(std::begin(kOptional), std::end(kOptional), is)) return true;
  constexpr std::string_view kEngines = "engines/", kStacks = "stacks/";
  if (name.substr(0, kEngines.size()) == kEngines) return is_part(name.substr(kEngines.size()));
  return name.substr(0, kStacks.size()) == kStacks && is_stack_file(name.substr(kStacks.size()));
}

Entries read_manifest(std::string_view text, std::string_view where) {
  const json::Value tree = json::parse(text, where);
  check_seal(tree, where);
  const json::Value *files = tree.find("files");
  if (!files || files->kind != json::Kind::kObject) damaged("not a manifest", where);
  Entries entries;
  std::uint64_t total = 0;
  for (const auto &[name, entry] : files->members) {
    if (!is_entry(entry)) damaged("not a manifest: a file without size and SHA-256", where);
    const auto bytes = static_cast<std::uint64_t>(entry.find("bytes")->integer);
    entries.emplace(name, Entry{bytes, entry.find("sha256")->text});
    total += bytes;
  }
  check_names(entries, where);
  if (total > kMaxBundleBytes) damaged("bundle is too large", where);
  return entries;
}

}  // namespace skr
