// Pictures as PPM and label maps as PGM, binary, 8 bits: formats that need no library. `ffmpeg -i a.png a.ppm` makes one.
#ifndef SEARCHKIT_EXAMPLES_PPM_H
#define SEARCHKIT_EXAMPLES_PPM_H

#include <cctype>
#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

struct Picture {
  std::int64_t height = 0, width = 0;
  std::vector<std::uint8_t> rgb;
};

// The next number of a header; `#` begins a comment that ends with the line.
inline int header_number(std::istream &in) {
  in >> std::ws;
  while (in.peek() == '#') {
    std::string comment;
    std::getline(in, comment);
    in >> std::ws;
  }
  int value = 0;
  in >> value;
  return in ? value : -1;
}

inline Picture read_ppm(const std::string &path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error(path + ": cannot be opened");
  std::string magic(2, '\0');
  in.read(magic.data(), 2);
  Picture picture;
  picture.width = header_number(in);
  picture.height = header_number(in);
  const int most = header_number(in);
  in.get();
  constexpr std::int64_t kMaxSide = 8192;
  const auto sane = [](std::int64_t side) { return side >= 1 && side <= kMaxSide; };
  if (magic != "P6" || most != 255 || !sane(picture.width) || !sane(picture.height)) {
    throw std::runtime_error(path + ": not a binary PPM of 8 bits with sides of 1 to 8192 px");
  }
  picture.rgb.resize(static_cast<std::size_t>(picture.height * picture.width * 3));
  in.read(reinterpret_cast<char *>(picture.rgb.data()), static_cast<std::streamsize>(picture.rgb.size()));
  if (!in) throw std::runtime_error(path + ": ends too early");
  return picture;
}

// PPM where `pixels` has three bytes a pixel, PGM where it has one.
inline void write_pnm(const std::string &path, std::int64_t height, std::int64_t width,
                      const std::vector<std::uint8_t> &pixels) {
  const bool colours = pixels.size() != static_cast<std::size_t>(height * width);
  std::ofstream out(path, std::ios::binary);
  out << (colours ? "P6" : "P5") << '\n' << width << ' ' << height << "\n255\n";
  out.write(reinterpret_cast<const char *>(pixels.data()), static_cast<std::streamsize>(pixels.size()));
  out.close();
  if (!out) throw std::runtime_error(path + ": cannot be written");
}

#endif
