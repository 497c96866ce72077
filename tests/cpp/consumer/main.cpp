#include <iostream>
#include <searchkit/runtime.hpp>

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  try {
    const searchkit::Model model(argv[1]);
    std::cout << model.info().height << 'x' << model.info().width << ", " << model.info().classes << " classes\n";
  } catch (const searchkit::Error &error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
