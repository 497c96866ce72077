#include "scaling.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <string>

#include "error.h"
#include "preprocess.h"

namespace skr {
namespace {

// Which pixel each pixel of one side of the result is; -1 for one beyond the edge, which is left black. The position is
// summed up step by step, since the rounding of that sum decides ties.
std::vector<std::int32_t> nearest(std::int64_t from, std::int64_t to) {
  const double step = static_cast<double>(from) / static_cast<double>(to);
  std::vector<std::int32_t> result(static_cast<std::size_t>(to));
  double position = step * 0.5;
  for (std::int32_t &index : result) {
    index = static_cast<std::int32_t>(position);
    if (index >= from) index = -1;
    position += step;
  }
  return result;
}

}  // namespace

void scale_picture(const skr_picture &picture, std::uint8_t *input, Size model, Size place, const Colour &pad) {
  const sk_picture from{picture.data, picture.height, picture.width, static_cast<std::ptrdiff_t>(picture.row_bytes), 3, 1};
  const sk_network_input to{input, SK_NHWC_UINT8, model.height, model.width, place.height, place.width};
  // One thread: those of ONNX Runtime still spin, and more of them would only take turns.
  const sk_preprocess_options options{nullptr, {pad[0], pad[1], pad[2]}, 1, -1};
  const int status = sk_preprocess(&from, &to, &options);
  if (status == SK_NO_MEMORY) throw std::bad_alloc();
  if (status != SK_OK) fail(SKR_INTERNAL, std::string("the pre-processing refuses: ") + sk_status_text(status));
}

LabelScaler::LabelScaler(Size from, Size to)
    : columns_(nearest(from.width, to.width)), rows_(nearest(from.height, to.height)) {}

void LabelScaler::run(const std::uint8_t *from, std::int64_t from_row, std::uint8_t *to, std::int64_t to_row) const {
  for (std::size_t y = 0; y < rows_.size(); ++y, to += to_row) {
    if (rows_[y] < 0) {
      std::memset(to, 0, columns_.size());
      continue;
    }
    const std::uint8_t *row = from + rows_[y] * from_row;
    for (std::size_t x = 0; x < columns_.size(); ++x) {
      to[x] = columns_[x] < 0 ? std::uint8_t{0} : row[columns_[x]];
    }
  }
}

Size inside(bool letterbox, Size picture, Size model) {
  if (!letterbox) return model;
  const double scale = std::min(static_cast<double>(model.height) / static_cast<double>(picture.height),
                                static_cast<double>(model.width) / static_cast<double>(picture.width));
  // Halves to the even neighbour, as Python rounds.
  const auto side = [&](std::int64_t length, std::int64_t most) {
    const auto scaled = static_cast<std::int64_t>(std::nearbyint(static_cast<double>(length) * scale));
    return std::max<std::int64_t>(1, std::min(most, scaled));
  };
  return {side(picture.height, model.height), side(picture.width, model.width)};
}

}  // namespace skr
