"""Isaac ROS 4.5: a launch file and the parameters of TensorRTNode and UNetDecoderNode. Not run here.

The model lies beside the two files; TensorRTNode writes the engine that it builds there too. The encoder is the launch
file that Isaac ROS ships in place of DnnImageEncoderNode; mean and standard deviation are among its arguments.
"""

from __future__ import annotations

from string import Template

from . import Stack, Subject
from ._names import colours
from ._ros_parameters import Parameters, parameter_file, written

_WORKSPACE_BYTES = 2**29

_LAUNCH = Template('''"""Camera image to label map: image encoder, TensorRTNode and UNetDecoderNode in one container."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import ComposableNodeContainer
from launch_ros.descriptions import ComposableNode

HERE = Path(__file__).resolve().parent
CONTAINER = "segmentation_container"

# The engine is kept between starts: delete it when the model or TensorRT changes.
ARGUMENTS = {
    "input_image_width": "1920",
    "input_image_height": "1080",
    "image_input_topic": "/image",
    "camera_info_input_topic": "/camera_info",
    "model_file_path": str(HERE / "$model"),
    "engine_file_path": str(HERE / "$engine"),
}

# The whole image is stretched onto the network's size. With another mean or deviation the labels are wrong.
ENCODER = {
    "network_image_width": "$width",
    "network_image_height": "$height",
    "image_mean": "$mean",
    "image_stddev": "$std",
    "input_encoding": "rgb8",
    "enable_padding": "True",
    "keep_aspect_ratio": "False",
    "crop_mode": "CENTER",
    "final_tensor_name": "input_tensor",
    "tensor_output_topic": "/tensor_pub",
    "attach_to_shared_component_container": "True",
    "component_container_name": f"/{CONTAINER}",
    "dnn_image_encoder_namespace": "segmentation_encoder",
}


def generate_launch_description():
    encoder = Path(get_package_share_directory("isaac_ros_dnn_image_encoder")) / "launch/dnn_image_encoder.launch.py"
    from_caller = ("input_image_width", "input_image_height", "image_input_topic", "camera_info_input_topic")
    parameters = str(HERE / "params.yaml")
    inference = ComposableNode(
        name="tensor_rt_node",
        package="isaac_ros_tensor_rt",
        plugin="nvidia::isaac_ros::dnn_inference::TensorRTNode",
        parameters=[parameters, {name: LaunchConfiguration(name) for name in ("model_file_path", "engine_file_path")}],
    )
    decoder = ComposableNode(
        name="unet_decoder_node",
        package="isaac_ros_unet",
        plugin="nvidia::isaac_ros::unet::UNetDecoderNode",
        parameters=[parameters],
    )
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(name, default_value=value) for name, value in ARGUMENTS.items()),
            ComposableNodeContainer(
                name=CONTAINER,
                namespace="",
                package="rclcpp_components",
                executable="component_container_mt",
                composable_node_descriptions=[inference, decoder],
                output="screen",
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(encoder)),
                launch_arguments={**ENCODER, **{name: LaunchConfiguration(name) for name in from_caller}}.items(),
            ),
        ]
    )
''')


class IsaacROSStack(Stack):
    """`segmentation.launch.py`, `params.yaml`; add the model."""

    name = "isaac-ros"
    contracts = ("isaac-ros",)

    def texts(self, subject: Subject) -> dict[str, str]:
        launch = _LAUNCH.substitute(
            model=subject.model_file,
            engine=f"{subject.model_file.removesuffix('.onnx')}.plan",
            width=subject.size.width,
            height=subject.size.height,
            mean=written([float(value) for value in subject.mean]),
            std=written([float(value) for value in subject.std]),
        )
        return {"segmentation.launch.py": launch, "params.yaml": _parameters(subject)}


def _parameters(subject: Subject) -> str:
    palette = [red << 16 | green << 8 | blue for red, green, blue in colours(subject)]
    nodes: dict[str, Parameters] = {
        "tensor_rt_node": {
            "input_tensor_names": ["input_tensor"],
            "input_binding_names": [subject.input.name],
            "input_tensor_formats": ["nitros_tensor_list_nchw_rgb_f32"],
            "output_tensor_names": ["output_tensor"],
            "output_binding_names": [subject.output.name],
            "output_tensor_formats": ["nitros_tensor_list_nhwc_rgb_f32"],
            "force_engine_update": False,
            "max_workspace_size": _WORKSPACE_BYTES,
            "max_batch_size": 1,
            "enable_fp16": subject.precision != "fp32",
        },
        "unet_decoder_node": {
            "network_output_type": "argmax",
            "color_segmentation_mask_encoding": "rgb8",
            "color_palette": palette,
            "mask_width": subject.size.width,
            "mask_height": subject.size.height,
        },
    }
    comment = [f"{subject.precision}, {subject.size}, {subject.classes} classes; colours are 24-bit RGB, one a class."]
    return parameter_file(nodes, comment=comment)


STACK = IsaacROSStack()
