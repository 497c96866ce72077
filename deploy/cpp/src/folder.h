// The folder of a bundle, read so that nothing outside it is ever opened: each part of a name is opened from the folder
// before it, and no link is followed.
#ifndef SKR_SRC_FOLDER_H
#define SKR_SRC_FOLDER_H

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>

namespace skr {

// A file descriptor that is closed at the end.
class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  Descriptor(Descriptor &&other) noexcept : number_(other.number_) { other.number_ = -1; }
  Descriptor &operator=(Descriptor &&other) noexcept;
  ~Descriptor();
  int get() const { return number_; }
  // The caller closes it from now on.
  int release();

 private:
  int number_;
};

struct Listing {
  std::map<std::string, std::uint64_t> files;  // name from the bundle's folder on -> bytes
  std::set<std::string> folders;
};

class Folder {
 public:
  // Throws `Failure`: usage where there is no folder at `path`.
  explicit Folder(std::string path);

  const std::string &path() const { return path_; }
  std::string place(std::string_view name) const { return path_ + "/" + std::string(name); }

  // All that lies in it, however deep. Throws `Failure`: damaged for a link, a pipe or too many files, storage else.
  Listing list() const;

  // The content of a file that must have exactly `bytes`. Throws `Failure`.
  std::string read(const std::string &name, std::uint64_t bytes) const;

  // SHA-256 of such a file, which is not held in memory. Throws `Failure`.
  std::string sha256(const std::string &name, std::uint64_t bytes) const;

  // Size of a plain file; -1 where there is none. Throws `Failure`: damaged for a link.
  std::int64_t size(const std::string &name) const;

 private:
  Descriptor open(const std::string &name) const;

  std::string path_;
  Descriptor root_;
};

}  // namespace skr
#endif
