// A bundle whose every file had the size and SHA-256 that its manifest states when it was opened.
#ifndef SKR_SRC_BUNDLE_H
#define SKR_SRC_BUNDLE_H

#include <string>

#include "folder.h"
#include "manifest.h"

namespace skr {

class Bundle {
 public:
  // Checks all files. Throws `Failure`.
  explicit Bundle(const std::string &path);

  // The content of one of its files, checked again. Throws `Failure`.
  std::string read(const std::string &name) const;

  std::string place(std::string_view name) const { return folder_.place(name); }

 private:
  void check_listing() const;

  Folder folder_;
  Entries entries_;
};

}  // namespace skr
#endif
