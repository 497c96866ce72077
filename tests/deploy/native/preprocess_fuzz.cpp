// Random sizes, strides, layouts and contents through every kernel of the pre-processing, against a plain loop.
// Run under a sanitizer: the buffers are exactly as large as they must be.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "preprocess.h"

namespace {

std::mt19937_64 source(20260102);

int64_t between(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(source); }

[[noreturn]] void fail(const char *what, long number) {
  std::fprintf(stderr, "case %ld: %s\n", number, what);
  std::exit(1);
}

// Bytes of one side, resized with weights in double precision and rounded once.
std::vector<double> resized(const std::vector<double> &line, int64_t to) {
  const int64_t from = static_cast<int64_t>(line.size());
  const double scale = static_cast<double>(from) / static_cast<double>(to), reach = std::fmax(scale, 1.0);
  std::vector<double> result;
  for (int64_t i = 0; i < to; ++i) {
    double sum = 0, total = 0;
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    const int64_t first = std::max<int64_t>(static_cast<int64_t>(centre - reach) - 2, 0);
    for (int64_t x = first; x < std::min(from, static_cast<int64_t>(centre + reach) + 3); ++x) {
      const double weight = 1 - std::fabs(static_cast<double>(x) + 0.5 - centre) / reach;
      if (weight <= 0) continue;
      sum += weight * line[static_cast<size_t>(x)];
      total += weight;
    }
    result.push_back(from == to ? line[static_cast<size_t>(i)] : sum / total);
  }
  return result;
}

struct Picture {
  sk_picture view;
  std::vector<uint8_t> bytes;
  uint8_t at(int64_t y, int64_t x, int64_t c) const {
    return view.data[y * view.row_stride + x * view.column_stride + c * view.channel_stride];
  }
};

Picture random_picture() {
  Picture picture;
  sk_picture &view = picture.view;
  const int64_t shape = between(0, 9);
  view.height = shape == 0 ? between(250, 500) : between(1, 24);
  view.width = shape == 1 ? between(200, 1200) : between(1, 40);
  const int64_t channels = between(3, 4), gap = between(0, 5);
  const bool planes = between(0, 3) == 0;
  view.column_stride = planes ? 1 : channels;
  view.channel_stride = planes ? view.height * view.width : 1;
  view.row_stride = planes ? view.width : view.width * channels + gap;
  // Up to the last byte that is read, and not one more.
  const int64_t last = (view.height - 1) * view.row_stride + (view.width - 1) * view.column_stride + 2 * view.channel_stride;
  picture.bytes.resize(static_cast<size_t>(last + 1));
  for (uint8_t &byte : picture.bytes) byte = static_cast<uint8_t>(between(0, 1) ? source() : between(0, 1) * 255);
  view.data = picture.bytes.data();
  if (between(0, 3) == 0) {  // Backwards.
    view.data += last;
    view.row_stride = -view.row_stride;
    view.column_stride = -view.column_stride;
    view.channel_stride = -view.channel_stride;
  }
  return picture;
}

// Inside the picture, as doubles: rows first, rounded to bytes, then columns.
std::vector<double> expected(const Picture &picture, int64_t c, int64_t height, int64_t width) {
  std::vector<std::vector<double>> rows;
  for (int64_t y = 0; y < picture.view.height; ++y) {
    std::vector<double> row;
    for (int64_t x = 0; x < picture.view.width; ++x) row.push_back(picture.at(y, x, c));
    rows.push_back(resized(row, width));
  }
  std::vector<double> result(static_cast<size_t>(height * width));
  for (int64_t x = 0; x < width; ++x) {
    std::vector<double> column;
    for (const auto &row : rows) column.push_back(row[static_cast<size_t>(x)]);
    const std::vector<double> blended = resized(column, height);
    for (int64_t y = 0; y < height; ++y) result[static_cast<size_t>(y * width + x)] = blended[static_cast<size_t>(y)];
  }
  return result;
}

void check_case(long number, long *pixels) {
  const Picture picture = random_picture();
  sk_network_input out{};
  out.layout = static_cast<int32_t>(between(0, 2));
  // Of a tall picture few rows: a thread then holds so many source rows that it works in strips.
  out.inside_height = picture.view.height > 24 ? between(1, 2) : between(0, 3) ? between(1, 20) : picture.view.height;
  out.inside_width = between(0, 3) ? between(1, 400) : picture.view.width;
  out.height = out.inside_height + (between(0, 1) ? between(0, 4) : 0);
  out.width = out.inside_width + (between(0, 1) ? between(0, 20) : 0);
  std::vector<float> levels(3 * 256);
  for (size_t i = 0; i < levels.size(); ++i) levels[i] = static_cast<float>(i % 256);
  sk_preprocess_options options{levels.data(), {7, 77, 177}, static_cast<int32_t>(between(1, 4)), 0};
  const size_t area = static_cast<size_t>(out.height * out.width);
  std::vector<uint8_t> first;
  for (options.isa = 0; sk_isa_name(options.isa); ++options.isa) {
    std::vector<float> floats(out.layout == SK_NHWC_UINT8 ? 0 : 3 * area);
    std::vector<uint8_t> bytes(out.layout == SK_NHWC_UINT8 ? 3 * area : 0);
    out.data = out.layout == SK_NHWC_UINT8 ? static_cast<void *>(bytes.data()) : floats.data();
    const int status = sk_preprocess(&picture.view, &out, &options);
    if (status != (sk_isa_runs(options.isa) ? SK_OK : SK_WRONG_CPU)) fail(sk_status_text(status), number);
    if (status != SK_OK) continue;
    std::vector<uint8_t> found(3 * area);
    for (size_t i = 0; i < 3 * area; ++i) {
      const size_t from = out.layout == SK_NCHW_FLOAT32 ? i % 3 * area + i / 3 : i;
      found[i] = bytes.empty() ? static_cast<uint8_t>(floats[from]) : bytes[from];
    }
    if (first.empty()) first = found;
    if (found != first) fail("the kernels differ", number);
  }
  for (int64_t c = 0; c < 3; ++c) {
    const std::vector<double> wanted = expected(picture, c, out.inside_height, out.inside_width);
    for (int64_t y = 0; y < out.height; ++y)
      for (int64_t x = 0; x < out.width; ++x, ++*pixels) {
        const bool inside = y < out.inside_height && x < out.inside_width;
        const double want = inside ? wanted[static_cast<size_t>(y * out.inside_width + x)] : options.pad[c];
        // Two roundings of half a level, and those of the weights.
        if (std::fabs(first[static_cast<size_t>((y * out.width + x) * 3 + c)] - want) > (inside ? 1.05 : 0))
          fail("another byte", number);
      }
  }
}

void check_refusals() {
  uint8_t byte[3] = {1, 2, 3};
  float out[3];
  std::vector<float> levels(768);
  const sk_picture picture{byte, 1, 1, 3, 3, 1};
  const sk_network_input input{out, SK_NCHW_FLOAT32, 1, 1, 1, 1};
  const sk_preprocess_options options{levels.data(), {0, 0, 0}, 1, -1};
  const auto expect = [](int status, int wanted) {
    if (status != wanted) fail(sk_status_text(status), -1);
  };
  expect(sk_preprocess(&picture, &input, &options), SK_OK);
  expect(sk_preprocess(nullptr, &input, &options), SK_NULL_POINTER);
  sk_picture bad_picture = picture;
  bad_picture.data = nullptr;
  expect(sk_preprocess(&bad_picture, &input, &options), SK_NULL_POINTER);
  for (const int64_t side : {int64_t{0}, int64_t{-1}, int64_t{32769}}) {
    bad_picture = picture;
    bad_picture.width = side;
    expect(sk_preprocess(&bad_picture, &input, &options), SK_BAD_SHAPE);
  }
  sk_network_input bad = input;
  bad.inside_width = 2;
  expect(sk_preprocess(&picture, &bad, &options), SK_BAD_SHAPE);
  bad = input;
  bad.layout = 3;
  expect(sk_preprocess(&picture, &bad, &options), SK_BAD_OPTION);
  bad = input;
  bad.data = reinterpret_cast<char *>(out) + 1;
  expect(sk_preprocess(&picture, &bad, &options), SK_MISALIGNED);
  sk_preprocess_options wrong = options;
  wrong.levels = nullptr;
  expect(sk_preprocess(&picture, &input, &wrong), SK_NULL_POINTER);
  wrong = options;
  wrong.threads = 0;
  expect(sk_preprocess(&picture, &input, &wrong), SK_BAD_OPTION);
  wrong = options;
  wrong.isa = 99;
  expect(sk_preprocess(&picture, &input, &wrong), SK_BAD_OPTION);
}

}  // namespace

int main(int count, char **arguments) {
  const long cases = count > 1 ? std::atol(arguments[1]) : 1000;
  long pixels = 0;
  check_refusals();
  for (long number = 0; number < cases; ++number) check_case(number, &pixels);
  std::printf("%ld cases, %ld pixels compared\n", cases, pixels);
}
