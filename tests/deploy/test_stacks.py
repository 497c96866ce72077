"""Files of driving stacks: every key is one that the stack documents, and no name can break out of its place."""

from __future__ import annotations

import ast
import configparser
import csv
import re
from dataclasses import replace

import pytest
import yaml

from deploy.contracts import CONTRACTS
from deploy.stacks import STACKS, Stack, Subject, readers
from searchkit.errors import UsageError
from searchkit.label_sets import CITYSCAPES_19, LabelSet, generic_labels
from searchkit.normalization import MEAN, STD
from searchkit.sizes import Size

SIZE = Size(512, 1024)


def words(text):
    return set(text.split())


# DeepStream 9.1 documentation, Gst-nvinfer, group [property].
DEEPSTREAM_KEYS = words(
    "onnx-file model-engine-file labelfile-path batch-size network-mode strongly-typed network-type"
    " num-detected-classes infer-dims net-scale-factor offsets model-color-format network-input-order"
    " segmentation-threshold segmentation-output-order output-blob-names workspace-size gie-unique-id"
    " parse-segmentation-func-name custom-lib-path output-tensor-meta"
)
# Triton, model_config.proto: message and its fields.
TRITON_KEYS = {
    "": words(
        "name platform backend max_batch_size input output instance_group version_policy model_warmup optimization"
        " default_model_filename cc_model_filenames parameters"
    ),
    "input": {"name", "data_type", "format", "dims"},
    "output": {"name", "data_type", "dims", "label_filename"},
    "instance_group": {"name", "kind", "count", "gpus"},
    "cc_model_filenames": {"key", "value"},
    "model_warmup": {"name", "batch_size", "inputs", "count"},
    "model_warmup.inputs": {"key", "value"},
    "model_warmup.inputs.value": {"data_type", "dims", "zero_data", "random_data", "input_data_file"},
}
# Apollo, darkSCNN.proto.
APOLLO_KEYS = {
    "": {"model_param", "net_param", "gpu_id", "camera_name"},
    "model_param": words(
        "model_name model_type proto_file weight_file input_offset_x input_offset_y crop_height crop_width"
        " resize_height resize_width mean_b mean_g mean_r is_bgr confidence_threshold"
    ),
    "net_param": {"input_blob", "seg_blob", "vpt_blob"},
}
# Isaac ROS 4.5 documentation: parameters of the nodes, arguments of the image encoder's launch file.
ISAAC_KEYS = {
    "tensor_rt_node": words(
        "model_file_path engine_file_path force_engine_update input_tensor_names output_tensor_names"
        " input_binding_names output_binding_names input_tensor_formats output_tensor_formats max_workspace_size"
        " max_batch_size enable_fp16 relaxed_dimension_check dla_core verbose"
    ),
    "unet_decoder_node": words(
        "network_output_type color_palette color_segmentation_mask_encoding mask_width mask_height"
    ),
}
ISAAC_ENCODER_ARGUMENTS = words(
    "input_image_width input_image_height network_image_width network_image_height image_mean image_stddev"
    " enable_padding input_qos output_qos num_blocks keep_aspect_ratio crop_mode input_encoding encoding_desired"
    " final_tensor_name dnn_image_encoder_namespace image_input_topic camera_info_input_topic tensor_output_topic"
    " attach_to_shared_component_container component_container_name"
)
# Autoware: parameters of its camera nodes, autoware_tensorrt_common and ML packages.
AUTOWARE_KEYS = words(
    "model_path label_path color_map_path precision calibration_algorithm preprocess_on_gpu gpu_id build_only"
    " is_publish_color_mask engine_path workspace dla_core_id profile_per_layer class_names"
)

HOSTILE = (
    "road;sidewalk",
    "a,b",
    'x"] }\nname: "evil',
    "new\nline",
    "back\\slash",
    "Straße",
    "行人",
    "",
    "   ",
    "#comment",
    "[property]",
    "onnx-file=/etc/passwd",
    "'''\nimport os\n'''",
    "$(var data_path)",
    "$model",
    "{0}",
    "=1+1",
    "no",
    "7",
    "a" * 500,
    "a b",
    "a;b",
    "\u2028",
    "\x00\x1b[31m",
    "-rf",
)
HOSTILE_LABELS = LabelSet("hostile", HOSTILE, generic_labels(len(HOSTILE)).palette)
HOSTILE_SUBJECTS = ('../../"x";\n[y]', "", "名", "-rf *", "$(reboot)", "a" * 400, "..")


def subject(io, labels=CITYSCAPES_19, name="ssr", precision="fp32", **changes):
    contract = CONTRACTS.load(io)
    tensors = contract.input_spec(SIZE), contract.output_spec(SIZE, len(labels))
    return Subject(name, io.replace("_", "-"), SIZE, *tensors, labels, precision, MEAN, STD, **changes)


@pytest.fixture(params=STACKS.names())
def stack(request):
    return STACKS.load(request.param)


def made(stack, **changes):
    files = stack.files(subject(stack.contracts[0], **changes))
    return {path: data.decode("ascii") for path, data in files.items()}


def parse_text_proto(text):
    """A strict reader of the part of the format that is used: (field, value) pairs; raises on anything else."""
    token = re.compile(r'\s*(?:#[^\n]*\n\s*)*([A-Za-z_]\w*|-?\d+(?:\.\d+)?|"(?:[^"\\\n]|\\["\\n])*"|[{}\[\]:,]|$)')
    position = 0

    def take(*allowed):
        nonlocal position
        match = token.match(text, position)
        assert match, f"no token at {text[position : position + 20]!r}"
        position = match.end()
        found = match[1]
        assert not allowed or found in allowed, (found, allowed)
        return found

    def scalar(found):
        if found.startswith('"'):
            return ast.literal_eval(found)
        if re.match(r"-?\d", found):
            return float(found) if "." in found else int(found)
        assert re.fullmatch(r"[A-Za-z_]\w*", found), found
        return {"true": True, "false": False}.get(found, f"<{found}>")

    def numbers():
        items = [scalar(take())]
        while take(",", "]") == ",":
            items.append(scalar(take()))
        return items

    def message(end):
        fields = []
        while (name := take()) != end:
            assert re.fullmatch(r"[A-Za-z_]\w*", name), name
            if take(":", "{") == "{":
                fields.append((name, message("}")))
            else:
                value = take()
                fields.append((name, numbers() if value == "[" else scalar(value)))
        return fields

    return message("")


def check_fields(fields, allowed, where=""):
    for name, value in fields:
        assert name in allowed[where], (where, name)
        if isinstance(value, list) and value and isinstance(value[0], tuple):
            check_fields(value, allowed, f"{where}.{name}".lstrip("."))


def test_the_strict_reader_is_strict():
    assert parse_text_proto('# c\na: "x\\"y"\nb { c: [1, 2] d: true }\n') == [
        ("a", 'x"y'),
        ("b", [("c", [1, 2]), ("d", True)]),
    ]
    for broken in ('a: "x', "a: 1 }", "a { b: 1", 'a: "x\ny"', "a 1", "a: é", "a: [1 2]"):
        with pytest.raises(AssertionError):
            parse_text_proto(broken)


def test_there_is_one_for_every_stack_contract():
    assert STACKS.names() == ["apollo", "autoware", "deepstream", "isaac-ros", "triton"]
    for name in STACKS.names():
        stack = STACKS.load(name)
        assert isinstance(stack, Stack)
        assert stack.name == name == stack.contracts[0]
        assert set(stack.contracts) <= set(CONTRACTS.names())
        assert STACKS.summary(name)
    assert readers("deepstream") == ["deepstream", "triton"]
    assert readers("isaac_ros") == ["isaac-ros", "triton"]
    assert readers("raw") == ["triton"]


def test_same_subject_same_bytes(stack):
    assert stack.files(subject(stack.contracts[0])) == stack.files(subject(stack.contracts[0]))


@pytest.mark.parametrize("labels", [CITYSCAPES_19, HOSTILE_LABELS], ids=["cityscapes", "hostile"])
@pytest.mark.parametrize("name", ["ssr", *HOSTILE_SUBJECTS])
def test_files_are_ascii_and_lie_in_the_folder(stack, labels, name):
    for path, data in stack.files(subject(stack.contracts[0], labels, name)).items():
        assert re.fullmatch(r"(?:[A-Za-z0-9_][A-Za-z0-9_-]*/)?[a-z_]+(?:\.[a-z]+)+", path), path
        text = data.decode("ascii")
        assert text.endswith("\n")
        assert not re.search(r"[^\n\x20-\x7e]", text)
        # Neither a path of a machine nor a time may be in there.
        assert not re.search(r"(?<![\w./)\"])/(?:home|root|etc|usr)\b", text)


@pytest.mark.parametrize("io", ["raw", "nonsense"])
def test_a_contract_that_the_stack_cannot_read_is_refused(stack, io):
    if io in stack.contracts:
        return
    with pytest.raises(UsageError, match="cannot read this tensor contract") as caught:
        stack.files(replace(subject("raw"), io=io))
    assert f"--io {stack.contracts[0]}" in str(caught.value)


def test_half_precision_tensors(stack):
    whole = subject("softmax" if stack.name == "triton" else stack.contracts[0])
    given = replace(whole, input=replace(whole.input, dtype="float16"))
    if stack.name == "triton":
        assert b"TYPE_FP16" in stack.files(given)["ssr/config.pbtxt"]
        return
    with pytest.raises(UsageError, match="no half-precision"):
        stack.files(given)


@pytest.mark.parametrize("name", ["a/b.onnx", "../model.onnx", 'm"x', "a b", "", ".hidden", "-x", "модель.onnx"])
def test_a_file_name_that_is_a_path_or_needs_quotes_is_refused(name):
    with pytest.raises(UsageError, match="not a file name"):
        subject("triton", model_file=name)
    with pytest.raises(UsageError, match="not a file name"):
        subject("triton", engines={"sm75": name})


@pytest.mark.parametrize("target", ["75", "sm7", "SM75", "sm75;", "orin"])
def test_a_target_of_another_form_is_refused(target):
    with pytest.raises(UsageError, match="not a target"):
        subject("triton", engines={target: "a.plan"})


def ini(text):
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), strict=True)
    parser.optionxform = str
    parser.read_string(text)
    return parser


@pytest.mark.parametrize("labels", [CITYSCAPES_19, HOSTILE_LABELS], ids=["cityscapes", "hostile"])
def test_deepstream(labels):
    files = made(STACKS.load("deepstream"), labels=labels, name=HOSTILE_SUBJECTS[0])
    assert set(files) == {"config_infer.txt", "labels.txt"}
    parser = ini(files["config_infer.txt"])
    assert parser.sections() == ["property"]
    keys = dict(parser["property"])
    assert set(keys) <= DEEPSTREAM_KEYS
    assert keys["onnx-file"] == "model.onnx"
    assert keys["infer-dims"] == "3;512;1024"
    assert keys["num-detected-classes"] == str(len(labels))
    assert keys["output-blob-names"] == "probabilities"
    # One scale for three deviations would be wrong, and so would offsets: both are in the model.
    assert float(keys["net-scale-factor"]) == 1
    assert "offsets" not in keys
    assert (keys["network-type"], keys["strongly-typed"]) == ("2", "1")
    assert (keys["model-color-format"], keys["network-input-order"], keys["segmentation-output-order"]) == ("0",) * 3
    assert float(keys["segmentation-threshold"]) == 0
    assert keys["labelfile-path"] == "labels.txt"
    assert_names(files["labels.txt"], labels)


@pytest.mark.parametrize(("precision", "mode", "word"), [("fp32", "0", "fp32"), ("fp16", "2", "fp16")])
def test_deepstream_keeps_the_engine_that_it_builds(precision, mode, word):
    keys = ini(made(STACKS.load("deepstream"), precision=precision)["config_infer.txt"])["property"]
    assert keys["network-mode"] == mode
    assert keys["model-engine-file"] == f"model.onnx_b1_gpu0_{word}.engine"
    # A mode of 1 asks for a calibration table.
    int8 = ini(made(STACKS.load("deepstream"), precision="int8")["config_infer.txt"])["property"]
    assert int8["network-mode"] != "1"


def assert_names(text, labels):
    """One name a line, in order, unlike each other, with nothing that any format separates or quotes by."""
    names = text.split("\n")
    assert names.pop() == ""
    assert len(names) == len(set(names)) == len(labels)
    for name, given in zip(names, labels.names, strict=True):
        assert re.fullmatch(r"[A-Za-z0-9._-](?:[A-Za-z0-9 ._-]{0,70}[A-Za-z0-9._-])?", name), name
        assert re.search("[A-Za-z]", name)
        if re.fullmatch(r"[A-Za-z][A-Za-z ]{0,60}", given):
            assert name == given
    return names


def test_names_that_become_alike_stay_apart():
    names = made(STACKS.load("deepstream"), labels=HOSTILE_LABELS)["labels.txt"].splitlines()
    by_given = dict(zip(HOSTILE, names, strict=True))
    assert (by_given["a,b"], by_given["a;b"], by_given["a b"]) == ("a_b", "a_b_21", "a b")
    assert by_given["行人"] == "class 6"
    labels = LabelSet("x", ("a,b", "a_b_2", "a;b"), ((0, 0, 0),) * 3)
    assert made(STACKS.load("deepstream"), labels=labels)["labels.txt"] == "a_b\na_b_2\na_b_2_\n"


@pytest.mark.parametrize("labels", [CITYSCAPES_19, HOSTILE_LABELS], ids=["cityscapes", "hostile"])
@pytest.mark.parametrize("name", ["ssr", *HOSTILE_SUBJECTS])
def test_triton_with_the_onnx_model(labels, name):
    files = made(STACKS.load("triton"), labels=labels, name=name)
    (config,) = [path for path in files if path.endswith("/config.pbtxt")]
    folder = config.partition("/")[0]
    assert set(files) == {config, f"{folder}/labels.txt"}
    fields = parse_text_proto(files[config])
    check_fields(fields, TRITON_KEYS)
    keys = dict(fields)
    assert len(keys) == len(fields)
    # The server refuses a model whose name is not its folder's.
    assert keys["name"] == folder
    assert (keys["backend"], keys["default_model_filename"]) == ("onnxruntime", "model.onnx")
    assert "platform" not in keys
    assert keys["max_batch_size"] == 0
    assert dict(keys["input"]) == {"name": "image", "data_type": "<TYPE_UINT8>", "dims": [1, 512, 1024, 3]}
    assert dict(keys["output"]) == {"name": "labels", "data_type": "<TYPE_UINT8>", "dims": [1, 512, 1024]}
    assert dict(keys["instance_group"]) == {"kind": "<KIND_AUTO>", "count": 1}
    warm_up = dict(keys["model_warmup"])
    assert warm_up["batch_size"] == 1
    assert dict(dict(warm_up["inputs"])["value"])["dims"] == [1, 512, 1024, 3]
    assert_names(files[f"{folder}/labels.txt"], labels)


def test_triton_with_engines_for_several_gpus():
    engines = {"sm86": "b.plan", "sm75": "a.plan", "sm120": "b.plan"}
    fields = parse_text_proto(made(STACKS.load("triton"), engines=engines)["ssr/config.pbtxt"])
    check_fields(fields, TRITON_KEYS)
    files = [tuple(dict(value).values()) for name, value in fields if name == "cc_model_filenames"]
    assert sorted(files) == [("12.0", "b.plan"), ("7.5", "a.plan"), ("8.6", "b.plan")]
    keys = dict(fields)
    assert keys["platform"] == "tensorrt_plan"
    assert not {"backend", "default_model_filename"} & set(keys)
    assert dict(keys["instance_group"])["kind"] == "<KIND_GPU>"
    turned = dict(reversed(engines.items()))
    assert made(STACKS.load("triton"), engines=turned) == made(STACKS.load("triton"), engines=engines)


@pytest.mark.parametrize("io", STACKS.load("triton").contracts)
def test_triton_reads_every_contract(io):
    given = subject(io)
    keys = dict(parse_text_proto(STACKS.load("triton").files(given)["ssr/config.pbtxt"].decode()))
    types = {"uint8": "<TYPE_UINT8>", "float32": "<TYPE_FP32>", "int32": "<TYPE_INT32>"}
    for field, spec in (("input", given.input), ("output", given.output)):
        assert dict(keys[field]) == {"name": spec.name, "data_type": types[spec.dtype], "dims": list(spec.shape)}


def test_triton_reads_all_contracts_that_there_are():
    assert set(STACKS.load("triton").contracts) == set(CONTRACTS.names())


@pytest.mark.parametrize("labels", [CITYSCAPES_19, HOSTILE_LABELS], ids=["cityscapes", "hostile"])
def test_isaac_ros_parameters(labels):
    files = made(STACKS.load("isaac-ros"), labels=labels, name=HOSTILE_SUBJECTS[0])
    assert set(files) == {"segmentation.launch.py", "params.yaml"}
    nodes = yaml.safe_load(files["params.yaml"])
    assert set(nodes) == set(ISAAC_KEYS)
    for node, tree in nodes.items():
        assert set(tree) == {"ros__parameters"}
        assert set(tree["ros__parameters"]) <= ISAAC_KEYS[node]
    inference = nodes["tensor_rt_node"]["ros__parameters"]
    assert (inference["input_binding_names"], inference["output_binding_names"]) == (["image"], ["labels"])
    assert inference["input_tensor_formats"] == ["nitros_tensor_list_nchw_rgb_f32"]
    assert inference["force_engine_update"] is False
    assert inference["enable_fp16"] is False
    decoder = nodes["unet_decoder_node"]["ros__parameters"]
    assert decoder["network_output_type"] == "argmax"
    assert (decoder["mask_height"], decoder["mask_width"]) == SIZE
    colours = [tuple(value.to_bytes(3, "big")) for value in decoder["color_palette"]]
    assert colours == list(labels.palette)


def constants(tree):
    """Names at the top of a module and the literal values given to them; text that is joined stays an expression."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            pairs = zip(node.value.keys, node.value.values, strict=True)
            found[node.targets[0].id] = {ast.literal_eval(key): ast.unparse(value) for key, value in pairs}
    return found


def test_isaac_ros_launch_file():
    text = made(STACKS.load("isaac-ros"), labels=HOSTILE_LABELS, name=HOSTILE_SUBJECTS[0])["segmentation.launch.py"]
    tree = ast.parse(text)
    assert [node.name for node in tree.body if isinstance(node, ast.FunctionDef)] == ["generate_launch_description"]
    modules = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert {module.partition(".")[0] for module in modules} == {"pathlib", "ament_index_python", "launch", "launch_ros"}
    found = constants(tree)
    encoder = found["ENCODER"]
    assert set(encoder) | set(found["ARGUMENTS"]) - {"model_file_path", "engine_file_path"} <= ISAAC_ENCODER_ARGUMENTS
    assert (encoder["network_image_height"], encoder["network_image_width"]) == ("'512'", "'1024'")
    # The encoder's defaults are other numbers.
    assert yaml.safe_load(ast.literal_eval(encoder["image_mean"])) == list(MEAN)
    assert yaml.safe_load(ast.literal_eval(encoder["image_stddev"])) == list(STD)
    assert encoder["input_encoding"] == "'rgb8'"
    assert found["ARGUMENTS"]["model_file_path"] == "str(HERE / 'model.onnx')"
    assert found["ARGUMENTS"]["engine_file_path"] == "str(HERE / 'model.plan')"


class Recorder:
    """Stands for the classes of `launch` and `launch_ros`: keeps what it is made with."""

    def __init__(self, kind, *values, **named):
        self.kind, self.values, self.named = kind, values, named


def test_isaac_ros_launch_description(tmp_path, monkeypatch):
    """The function runs, and every node finds its parameters; the launch system is a record of what is asked of it."""
    import runpy
    import sys
    import types
    from functools import partial

    kinds = {
        "ament_index_python.packages": ["get_package_share_directory"],
        "launch": ["LaunchDescription"],
        "launch.actions": ["DeclareLaunchArgument", "IncludeLaunchDescription"],
        "launch.launch_description_sources": ["PythonLaunchDescriptionSource"],
        "launch.substitutions": ["LaunchConfiguration"],
        "launch_ros.actions": ["ComposableNodeContainer"],
        "launch_ros.descriptions": ["ComposableNode"],
    }
    for name, members in kinds.items():
        for part in {name, name.partition(".")[0]}:
            if part not in sys.modules:
                monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
        for member in members:
            monkeypatch.setattr(sys.modules[name], member, partial(Recorder, member), raising=False)
    share = sys.modules["ament_index_python.packages"]
    monkeypatch.setattr(share, "get_package_share_directory", lambda package: f"/share/{package}")
    files = made(STACKS.load("isaac-ros"))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    made_by = runpy.run_path(str(tmp_path / "segmentation.launch.py"))["generate_launch_description"]()
    *arguments, container, include = made_by.values[0]
    declared = {argument.values[0]: argument.named["default_value"] for argument in arguments}
    assert declared["model_file_path"] == str(tmp_path / "model.onnx")
    nodes = container.named["composable_node_descriptions"]
    parameters = yaml.safe_load(files["params.yaml"])
    assert [node.named["name"] for node in nodes] == list(parameters)
    assert all(node.named["parameters"][0] == str(tmp_path / "params.yaml") for node in nodes)
    passed = dict(include.named["launch_arguments"])
    assert set(passed) <= ISAAC_ENCODER_ARGUMENTS
    assert {value.values[0] for value in passed.values() if isinstance(value, Recorder)} <= set(declared)
    assert passed["component_container_name"] == f"/{container.named['name']}"
    assert passed["final_tensor_name"] == parameters["tensor_rt_node"]["ros__parameters"]["input_tensor_names"][0]


@pytest.mark.parametrize("labels", [CITYSCAPES_19, HOSTILE_LABELS], ids=["cityscapes", "hostile"])
@pytest.mark.parametrize("name", ["ssr", *HOSTILE_SUBJECTS])
def test_autoware(labels, name):
    files = made(STACKS.load("autoware"), labels=labels, name=name)
    assert set(files) == {"label.txt", "semseg_color_map.csv", "segmentation.param.yaml"}
    names = assert_names(files["label.txt"], labels)
    header, *rows = csv.reader(files["semseg_color_map.csv"].splitlines())
    assert header == ["id", "name", "r", "g", "b"]
    assert [[int(row[0]), row[1], *map(int, row[2:])] for row in rows] == [
        [index, name, *colour] for index, (name, colour) in enumerate(zip(names, labels.palette, strict=True))
    ]
    # Autoware splits at commas and knows no quotes.
    assert all(line.count(",") == 4 and '"' not in line for line in files["semseg_color_map.csv"].splitlines())
    tree = yaml.safe_load(files["segmentation.param.yaml"])
    parameters = tree["/**"]["ros__parameters"]
    assert set(tree) == {"/**"}
    assert set(tree["/**"]) == {"ros__parameters"}
    assert set(parameters) <= AUTOWARE_KEYS
    assert parameters["class_names"] == names
    assert parameters["precision"] == "as-is"
    for key, file in (("model_path", "model.onnx"), ("label_path", "label.txt"), ("color_map_path", rows and None)):
        path = parameters[key]
        assert re.fullmatch(r"\$\(var data_path\)/[A-Za-z0-9_][A-Za-z0-9_-]*/[a-z_]+\.[a-z]+", path)
        assert path.endswith(file or "/semseg_color_map.csv")


@pytest.mark.parametrize("name", ["ssr", *HOSTILE_SUBJECTS])
def test_apollo(name):
    files = made(STACKS.load("apollo"), labels=HOSTILE_LABELS, name=name)
    assert set(files) == {"segmentation.pb.txt"}
    fields = parse_text_proto(files["segmentation.pb.txt"])
    check_fields(fields, APOLLO_KEYS)
    model, network = dict(fields)["model_param"], dict(fields)["net_param"]
    keys = dict(model)
    assert len(keys) == len(model)
    assert keys["model_type"] == "Onnx"
    assert (keys["proto_file"], keys["weight_file"]) == ("model.onnx", "model.onnx")
    assert (keys["resize_height"], keys["resize_width"]) == SIZE
    # Whole numbers would be subtracted before the model subtracts its own.
    assert (keys["mean_b"], keys["mean_g"], keys["mean_r"]) == (0, 0, 0)
    assert keys["is_bgr"] is (CONTRACTS.load("apollo").input_spec(SIZE).colour_order == "BGR")
    assert 0.5 <= keys["confidence_threshold"] < 1
    assert dict(network) == {"input_blob": "image", "seg_blob": "probabilities"}


def test_more_classes_than_names():
    labels = replace(generic_labels(255), name="many")
    contract = CONTRACTS.load("deepstream")
    given = replace(subject("deepstream", labels), output=contract.output_spec(SIZE, 300))
    files = STACKS.load("deepstream").files(given)
    names = files["labels.txt"].decode().splitlines()
    assert len(names) == len(set(names)) == 300
    assert b"num-detected-classes=300\n" in files["config_infer.txt"]


def test_small_deviations_are_read_as_numbers():
    """YAML takes 1e-05 for text."""
    given = replace(subject("isaac-ros"), mean=(0.0, 1.0, 1e-05), std=(1, 2, 3))
    text = STACKS.load("isaac-ros").files(given)["segmentation.launch.py"].decode()
    encoder = constants(ast.parse(text))["ENCODER"]
    for key, values in (("image_mean", given.mean), ("image_stddev", given.std)):
        read = yaml.safe_load(ast.literal_eval(encoder[key]))
        assert read == pytest.approx(values)
        assert {type(value) for value in read} == {float}
