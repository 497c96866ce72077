// The C interface. Whatever is thrown inside ends here as a code and a message.

#include "searchkit/runtime.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>

#include "error.h"
#include "segmenter.h"

struct skr_model {
  std::shared_ptr<const skr::Model> held;
};

struct skr_segmenter {
  explicit skr_segmenter(std::shared_ptr<const skr::Model> model) : held(std::move(model)) {}
  skr::Segmenter held;
};

namespace {

int report(skr_error *error, int code, const char *message) {
  if (error) {
    error->code = code;
    const std::size_t bytes = std::min(std::strlen(message), sizeof(error->message) - 1);
    std::memcpy(error->message, message, bytes);
    error->message[bytes] = '\0';
  }
  return code;
}

template <typename Action>
int guarded(skr_error *error, const Action &action) noexcept {
  try {
    action();
    return SKR_OK;
  } catch (const skr::Failure &failure) {
    return report(error, failure.code(), failure.what());
  } catch (const std::bad_alloc &) {
    return report(error, SKR_NO_MEMORY, "out of memory");
  } catch (const std::exception &exception) {
    return report(error, SKR_INTERNAL, exception.what());
  } catch (...) {
    return report(error, SKR_INTERNAL, "an unknown exception");
  }
}

template <typename... Pointers>
void require(const Pointers *...pointers) {
  if (!(pointers && ...)) skr::fail(SKR_USAGE, "a null pointer");
}

skr_options checked(const skr_options *options) {
  if (!options) return {sizeof(skr_options), 0, SKR_CPU, 0, 0};
  if (options->struct_bytes != sizeof(skr_options)) skr::fail(SKR_USAGE, "options of another version of the library");
  if (options->threads < 0 || options->threads > 1024) skr::fail(SKR_USAGE, "threads must be from 0 to 1024");
  if (options->device < 0) skr::fail(SKR_USAGE, "no such device");
  if ((options->flags & ~std::uint64_t{SKR_PLAIN_GRAPH}) != 0) skr::fail(SKR_USAGE, "a flag that is not known");
  return *options;
}

// The index of a class; the number of them where there is no such class.
std::size_t index_of(const skr_model *model, std::int32_t label) {
  const std::size_t classes = model->held->contract.classes.size();
  return label < 0 ? classes : std::min(static_cast<std::size_t>(label), classes);
}

}  // namespace

int skr_open(const char *path, const skr_options *options, skr_model **model, skr_error *error) {
  return guarded(error, [&] {
    require(path, model);
    *model = nullptr;
    auto made = std::make_unique<skr_model>();
    made->held = std::make_shared<const skr::Model>(path, checked(options));
    *model = made.release();
  });
}

void skr_close(skr_model *model) { delete model; }

int skr_describe(const skr_model *model, skr_info *info, skr_error *error) {
  return guarded(error, [&] {
    require(model, info);
    const skr::Contract &contract = model->held->contract;
    *info = {};
    info->height = static_cast<std::int32_t>(contract.size.height);
    info->width = static_cast<std::int32_t>(contract.size.width);
    info->classes = static_cast<std::int32_t>(contract.classes.size());
    info->ignore = contract.ignore;
    info->trained = contract.trained;
    info->letterbox = contract.letterbox;
    std::copy(contract.pad.begin(), contract.pad.end(), info->pad_rgb);
    info->label_head = model->held->session->has_label_head();
  });
}

const char *skr_class_name(const skr_model *model, std::int32_t label) {
  if (!model) return nullptr;
  const std::size_t index = index_of(model, label);
  const auto &classes = model->held->contract.classes;
  return index < classes.size() ? classes[index].c_str() : nullptr;
}

void skr_class_colour(const skr_model *model, std::int32_t label, std::uint8_t rgb[3]) {
  if (!rgb) return;
  skr::Colour colour{};
  if (model) {
    const auto &palette = model->held->contract.palette;
    const std::size_t index = index_of(model, label);
    if (index < palette.size()) colour = palette[index];
  }
  std::copy(colour.begin(), colour.end(), rgb);
}

int skr_new_segmenter(const skr_model *model, skr_segmenter **segmenter, skr_error *error) {
  return guarded(error, [&] {
    require(model, segmenter);
    *segmenter = nullptr;
    *segmenter = std::make_unique<skr_segmenter>(model->held).release();
  });
}

void skr_free(skr_segmenter *segmenter) { delete segmenter; }

int skr_segment(skr_segmenter *segmenter, const skr_picture *picture, const skr_label_map *labels, skr_error *error) {
  return guarded(error, [&] {
    require(segmenter, picture, labels);
    segmenter->held.run(*picture, *labels);
  });
}

skr_times skr_last_times(const skr_segmenter *segmenter) { return segmenter ? segmenter->held.times() : skr_times{}; }

const char *skr_code_text(int code) {
  switch (code) {
    case SKR_OK: return "no error";
    case SKR_USAGE: return "usage";
    case SKR_DAMAGED: return "damaged";
    case SKR_UNSUPPORTED: return "unsupported";
    case SKR_STORAGE: return "storage";
    case SKR_RUNTIME: return "runtime";
    case SKR_NO_MEMORY: return "out of memory";
    case SKR_INTERNAL: return "internal";
    default: return "unknown code";
  }
}

const char *skr_onnxruntime_version(void) { return skr::ort_version(); }

int skr_abi(void) { return SKR_ABI; }
