// That both scalers give what Pillow gives is tested from Python; here, what needs no reference.
#include <vector>

#include "check.h"
#include "scaling.h"

namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr skr::Colour kPad = {1, 2, 3};

void test_flat_stays_flat() {
  for (const skr::Size from : {skr::Size{1, 1}, skr::Size{5, 7}, skr::Size{64, 3}, skr::Size{33, 200}}) {
    for (const skr::Size to : {skr::Size{1, 1}, skr::Size{7, 5}, skr::Size{64, 96}}) {
      const Bytes picture(static_cast<std::size_t>(from.height * from.width * 3), 200);
      Bytes result(static_cast<std::size_t>(to.height * to.width * 3));
      skr::scale_picture({picture.data(), from.height, from.width, from.width * 3}, result.data(), to, to, kPad);
      CHECK(result == Bytes(result.size(), 200));
    }
  }
}

void test_gaps_between_rows_are_not_read() {
  Bytes picture(4 * 20, 9);
  for (std::size_t y = 0; y < 4; ++y) picture[y * 20 + 18] = picture[y * 20 + 19] = 255;
  Bytes result(8 * 9 * 3);
  skr::scale_picture({picture.data(), 4, 6, 20}, result.data(), {8, 9}, {8, 9}, kPad);
  CHECK(result == Bytes(result.size(), 9));
}

// Also where the picture keeps its size.
void test_pad() {
  for (const skr::Size place : {skr::Size{4, 6}, skr::Size{3, 2}, skr::Size{5, 1}}) {
    const Bytes picture(4 * 6 * 3, 9);
    Bytes result(5 * 7 * 3);
    skr::scale_picture({picture.data(), 4, 6, 18}, result.data(), {5, 7}, place, kPad);
    for (std::int64_t i = 0; i < 5 * 7 * 3; ++i) {
      const bool inside = i / 21 < place.height && i / 3 % 7 < place.width;
      CHECK(result[static_cast<std::size_t>(i)] == (inside ? 9 : kPad[static_cast<std::size_t>(i % 3)]));
    }
  }
}

void test_labels() {
  const Bytes labels = {1, 2, 3, 4};
  Bytes result(16);
  skr::LabelScaler({2, 2}, {4, 4}).run(labels.data(), 2, result.data(), 4);
  CHECK(result == (Bytes{1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4}));
}

void test_letterbox() {
  CHECK(skr::inside(false, {9, 9}, {64, 96}) == (skr::Size{64, 96}));
  CHECK(skr::inside(true, {128, 96}, {64, 96}) == (skr::Size{64, 48}));
  CHECK(skr::inside(true, {8192, 1}, {64, 96}) == (skr::Size{64, 1}));
  CHECK(skr::inside(true, {64, 96}, {64, 96}) == (skr::Size{64, 96}));
  // 2.5 rounds to 2 and 3.5 to 4.
  CHECK(skr::inside(true, {128, 5}, {64, 96}) == (skr::Size{64, 2}));
  CHECK(skr::inside(true, {128, 7}, {64, 96}) == (skr::Size{64, 4}));
}

}  // namespace

void test_scaling() {
  test_flat_stays_flat();
  test_gaps_between_rows_are_not_read();
  test_pad();
  test_labels();
  test_letterbox();
}
