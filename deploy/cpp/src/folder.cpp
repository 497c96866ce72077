#include "folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include "error.h"
#include "sha256.h"

namespace skr {
namespace {

// Each file may lie in folders of its own.
constexpr std::size_t kMaxListed = 8 * 64;
constexpr std::size_t kChunkBytes = std::size_t{1} << 16;

[[noreturn]] void storage(const std::string &where) {
  const int error = errno;
  if (error == ENOENT) damaged("bundle file does not exist", where);
  if (error == ELOOP || error == ENOTDIR) damaged("is a symbolic link, or lies behind one", where);
  fail(SKR_STORAGE, std::strerror(error), where);
}

// Links are for leading elsewhere, where the content can change after it was checked.
void check_plain(const struct stat &status, const std::string &where) {
  if (S_ISLNK(status.st_mode)) damaged("is a symbolic link", where);
  if (!S_ISREG(status.st_mode)) damaged("is a pipe, a socket or a device", where);
  if (status.st_nlink > 1) damaged("has another name as well (a hard link)", where);
}

struct CloseFolder {
  void operator()(DIR *folder) const { ::closedir(folder); }
};

// Reads until `bytes` are there or the file ends; returns how many it read.
std::size_t read_fully(int file, char *out, std::size_t bytes, const std::string &where) {
  std::size_t done = 0;
  while (done < bytes) {
    const ssize_t got = ::read(file, out + done, bytes - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) storage(where);
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  return done;
}

[[noreturn]] void wrong_size(const std::string &where) {
  damaged("file has another size than the manifest says", where);
}

}  // namespace

Descriptor &Descriptor::operator=(Descriptor &&other) noexcept {
  std::swap(number_, other.number_);
  return *this;
}

Descriptor::~Descriptor() {
  if (number_ >= 0) ::close(number_);
}

int Descriptor::release() {
  const int number = number_;
  number_ = -1;
  return number;
}

// The bundle's folder itself may be reached through a link: which bundle to open is the caller's choice.
Folder::Folder(std::string path)
    : path_(std::move(path)), root_(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (root_.get() >= 0) return;
  if (errno == ENOENT || errno == ENOTDIR) fail(SKR_USAGE, "not a bundle: there is no such folder", path_);
  fail(SKR_STORAGE, std::strerror(errno), path_);
}

// Names come from a manifest that was checked: relative, without dots for parts.
Descriptor Folder::open(const std::string &name) const {
  Descriptor folder;
  std::size_t start = 0;
  for (std::size_t slash; (slash = name.find('/', start)) != std::string::npos; start = slash + 1) {
    const int from = start == 0 ? root_.get() : folder.get();
    const std::string part = name.substr(start, slash - start);
    folder = Descriptor(::openat(from, part.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (folder.get() < 0) storage(place(name));
  }
  const int from = start == 0 ? root_.get() : folder.get();
  // Without waiting: a pipe would keep the caller until somebody writes into it.
  Descriptor file(::openat(from, name.c_str() + start, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (file.get() < 0) storage(place(name));
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) storage(place(name));
  check_plain(status, place(name));
  return file;
}

Listing Folder::list() const {
  Listing result;
  std::vector<std::string> pending = {""};
  while (!pending.empty()) {
    const std::string prefix = pending.back();
    pending.pop_back();
    // Without the slash at the end, which would follow a link.
    const std::string opened = prefix.empty() ? "." : prefix.substr(0, prefix.size() - 1);
    Descriptor number(::openat(root_.get(), opened.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (number.get() < 0) storage(place(prefix));
    const std::unique_ptr<DIR, CloseFolder> folder(::fdopendir(number.get()));
    if (!folder) storage(place(prefix));
    number.release();
    for (const dirent *entry; (entry = ::readdir(folder.get())) != nullptr;) {
      const std::string leaf = entry->d_name;
      if (leaf == "." || leaf == "..") continue;
      const std::string name = prefix + leaf;
      struct stat status {};
      if (::fstatat(::dirfd(folder.get()), leaf.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) storage(place(name));
      if (S_ISDIR(status.st_mode)) {
        result.folders.insert(name);
        pending.push_back(name + "/");
      } else {
        check_plain(status, place(name));
        result.files.emplace(name, static_cast<std::uint64_t>(status.st_size));
      }
      if (result.files.size() + result.folders.size() > kMaxListed) damaged("holds too many files", path_);
    }
  }
  return result;
}

std::string Folder::read(const std::string &name, std::uint64_t bytes) const {
  const Descriptor file = open(name);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) storage(place(name));
  // The size first: no memory is taken for a file that claims more than it holds.
  if (static_cast<std::uint64_t>(status.st_size) != bytes) wrong_size(place(name));
  std::string data(static_cast<std::size_t>(bytes), '\0');
  if (read_fully(file.get(), data.data(), data.size(), place(name)) != data.size()) wrong_size(place(name));
  return data;
}

std::string Folder::sha256(const std::string &name, std::uint64_t bytes) const {
  const Descriptor file = open(name);
  std::vector<char> chunk(kChunkBytes);
  Sha256 hash;
  std::uint64_t total = 0;
  while (const std::size_t got = read_fully(file.get(), chunk.data(), chunk.size(), place(name))) {
    hash.update(chunk.data(), got);
    if ((total += got) > bytes) break;
  }
  if (total != bytes) wrong_size(place(name));
  return hash.hex();
}

std::int64_t Folder::size(const std::string &name) const {
  struct stat status {};
  if (::fstatat(root_.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return -1;
    storage(place(name));
  }
  check_plain(status, place(name));
  return status.st_size;
}

}  // namespace skr
