/* The C interface from C: what it answers to callers' mistakes, and that its messages end. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "searchkit/runtime.h"

static int failures = 0;

#define CHECK(condition)                                                    \
  do {                                                                      \
    if (!(condition)) {                                                     \
      fprintf(stderr, "%d: does not hold: %s\n", __LINE__, #condition);     \
      ++failures;                                                           \
    }                                                                       \
  } while (0)

static void check_opening(const char *bundle) {
  skr_error error = {0, ""};
  skr_model *model = NULL;
  skr_options options = {sizeof(skr_options), 1, SKR_CPU, 0, 0};
  CHECK(skr_open(NULL, &options, &model, &error) == SKR_USAGE && error.code == SKR_USAGE);
  CHECK(skr_open(bundle, &options, NULL, &error) == SKR_USAGE);
  CHECK(skr_open("/nowhere/at/all", NULL, &model, &error) == SKR_USAGE && model == NULL);
  CHECK(strstr(error.message, "no such folder") != NULL);
  CHECK(skr_open("", NULL, &model, NULL) == SKR_USAGE);
  CHECK(skr_open("/", NULL, &model, &error) == SKR_USAGE && strstr(error.message, "no manifest") != NULL);
  options.struct_bytes = 4;
  CHECK(skr_open(bundle, &options, &model, &error) == SKR_USAGE);
  options.struct_bytes = sizeof(skr_options);
  options.threads = -1;
  CHECK(skr_open(bundle, &options, &model, &error) == SKR_USAGE);
  options.threads = 1;
  options.flags = 2;
  CHECK(skr_open(bundle, &options, &model, &error) == SKR_USAGE && strstr(error.message, "flag") != NULL);
  options.flags = SKR_PLAIN_GRAPH;
  options.struct_bytes = 24; /* of interface 1, which had no flags */
  CHECK(skr_open(bundle, &options, &model, &error) == SKR_USAGE && strstr(error.message, "another version") != NULL);
  options.struct_bytes = sizeof(skr_options);
  options.provider = 7;
  CHECK(skr_open(bundle, &options, &model, &error) == SKR_USAGE);
  CHECK(model == NULL);
}

static void check_long_message(void) {
  skr_error error;
  skr_model *model = NULL;
  char *path = malloc(5001);
  memset(path, 'x', 5000);
  path[5000] = '\0';
  CHECK(skr_open(path, NULL, &model, &error) != SKR_OK);
  CHECK(memchr(error.message, '\0', sizeof(error.message)) != NULL);
  free(path);
}

static void check_pictures(skr_segmenter *segmenter) {
  enum { kHeight = 10, kWidth = 12 };
  uint8_t rgb[kHeight * kWidth * 3] = {0}, out[kHeight * kWidth];
  skr_error error;
  const skr_picture picture = {rgb, kHeight, kWidth, 3 * kWidth};
  const skr_label_map labels = {out, kHeight, kWidth, kWidth};
  skr_picture bad = picture;
  skr_label_map worse = labels;
  memset(out, 99, sizeof(out));
  CHECK(skr_segment(NULL, &picture, &labels, &error) == SKR_USAGE);
  CHECK(skr_segment(segmenter, NULL, &labels, &error) == SKR_USAGE);
  CHECK(skr_segment(segmenter, &picture, NULL, &error) == SKR_USAGE);
  bad.data = NULL;
  CHECK(skr_segment(segmenter, &bad, &labels, &error) == SKR_USAGE);
  bad = picture, bad.height = 0;
  CHECK(skr_segment(segmenter, &bad, &labels, &error) == SKR_USAGE);
  bad = picture, bad.width = INT64_MAX;
  CHECK(skr_segment(segmenter, &bad, &labels, &error) == SKR_USAGE);
  bad = picture, bad.row_bytes = 3 * kWidth - 1;
  CHECK(skr_segment(segmenter, &bad, &labels, &error) == SKR_USAGE);
  bad = picture, bad.row_bytes = INT64_MIN;
  CHECK(skr_segment(segmenter, &bad, &labels, &error) == SKR_USAGE);
  worse.height = kHeight - 1;
  CHECK(skr_segment(segmenter, &picture, &worse, NULL) == SKR_USAGE);
  worse = labels, worse.data = NULL;
  CHECK(skr_segment(segmenter, &picture, &worse, NULL) == SKR_USAGE);
  for (size_t i = 0; i < sizeof(out); ++i) CHECK(out[i] == 99);
  CHECK(skr_segment(segmenter, &picture, &labels, &error) == SKR_OK);
  CHECK(out[0] != 99);
  CHECK(skr_last_times(segmenter).session_ns > 0);
}

static void check_model(const char *bundle, int expected_head) {
  skr_model *model = NULL;
  skr_segmenter *segmenter = NULL;
  skr_error error;
  skr_info info;
  uint8_t rgb[3] = {1, 1, 1};
  CHECK(skr_open(bundle, NULL, &model, &error) == SKR_OK && model != NULL);
  CHECK(skr_describe(model, &info, &error) == SKR_OK && info.classes > 0 && info.height > 0);
  CHECK(info.label_head == expected_head);
  CHECK(skr_describe(NULL, &info, &error) == SKR_USAGE);
  CHECK(skr_describe(model, NULL, &error) == SKR_USAGE);
  CHECK(skr_class_name(model, 0) != NULL);
  CHECK(skr_class_name(model, -1) == NULL && skr_class_name(model, info.classes) == NULL && !skr_class_name(NULL, 0));
  skr_class_colour(model, info.classes, rgb);
  CHECK(rgb[0] == 0 && rgb[1] == 0 && rgb[2] == 0);
  skr_class_colour(NULL, 0, rgb);
  skr_class_colour(model, 0, NULL);
  CHECK(skr_new_segmenter(NULL, &segmenter, &error) == SKR_USAGE);
  CHECK(skr_new_segmenter(model, NULL, &error) == SKR_USAGE);
  CHECK(skr_new_segmenter(model, &segmenter, &error) == SKR_OK);
  CHECK(skr_last_times(segmenter).session_ns == 0 && skr_last_times(NULL).session_ns == 0);
  skr_close(model);
  check_pictures(segmenter);
  skr_free(segmenter);
  skr_close(NULL);
  skr_free(NULL);
}

/* Pictures of the model's size: read where they lie, copied from a buffer too many, or copied row by row. */
static void check_buffers(const char *bundle) {
  enum { kBuffers = 6, kGap = 5 };
  const skr_options options = {sizeof(skr_options), 1, SKR_CPU, 0, 0};
  skr_model *model = NULL;
  skr_segmenter *shared = NULL;
  skr_info info;
  CHECK(skr_open(bundle, &options, &model, NULL) == SKR_OK && skr_describe(model, &info, NULL) == SKR_OK);
  CHECK(skr_new_segmenter(model, &shared, NULL) == SKR_OK);
  const size_t row = 3 * (size_t)info.width, area = (size_t)info.height * (size_t)info.width;
  uint8_t *rgb[kBuffers], *gaps = malloc((size_t)info.height * (row + kGap));
  uint8_t *expected = malloc(area), *found = malloc(area);
  const skr_label_map wanted = {expected, info.height, info.width, info.width};
  const skr_label_map labels = {found, info.height, info.width, info.width};
  for (int i = 0; i < kBuffers; ++i) {
    rgb[i] = malloc(3 * area);
    for (size_t at = 0; at < 3 * area; ++at) rgb[i][at] = (uint8_t)((at * at >> (i + 4)) + 31 * (size_t)i);
  }
  for (int i = 0; i < 3 * kBuffers; ++i) {
    const uint8_t *data = rgb[i % kBuffers];
    const skr_picture picture = {data, info.height, info.width, (int64_t)row};
    const skr_picture loose = {gaps, info.height, info.width, (int64_t)row + kGap};
    skr_segmenter *alone = NULL;
    CHECK(skr_new_segmenter(model, &alone, NULL) == SKR_OK);
    CHECK(skr_segment(alone, &picture, &wanted, NULL) == SKR_OK);
    CHECK(skr_segment(shared, &picture, &labels, NULL) == SKR_OK && memcmp(found, expected, area) == 0);
    for (size_t y = 0; y < (size_t)info.height; ++y) memcpy(gaps + y * (row + kGap), data + y * row, row);
    CHECK(skr_segment(shared, &loose, &labels, NULL) == SKR_OK && memcmp(found, expected, area) == 0);
    skr_free(alone);
  }
  for (int i = 0; i < kBuffers; ++i) free(rgb[i]);
  free(gaps), free(expected), free(found);
  skr_free(shared);
  skr_close(model);
}

static void check_plain_graph(const char *bundle) {
  const skr_options options = {sizeof(skr_options), 1, SKR_CPU, 0, SKR_PLAIN_GRAPH};
  skr_model *model = NULL;
  skr_info info;
  CHECK(skr_open(bundle, &options, &model, NULL) == SKR_OK && skr_describe(model, &info, NULL) == SKR_OK);
  CHECK(info.label_head == 0);
  skr_close(model);
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  CHECK(skr_abi() == SKR_ABI);
  CHECK(strlen(skr_onnxruntime_version()) > 0);
  for (int code = -1; code < 10; ++code) CHECK(strlen(skr_code_text(code)) > 0);
  check_opening(argv[1]);
  check_long_message();
  check_model(argv[1], atoi(argv[2]));
  check_plain_graph(argv[1]);
  check_buffers(argv[1]);
  printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
