"""The operations that a TorchScript file may use: those that networks of tensors are made of.

None of them reads or writes a file, prints, runs other code or touches memory that is not its own;
a name with a last underscore works in place.
"""

_NAMES = """
_convolution conv1d conv2d conv_transpose1d conv_transpose2d linear addmm baddbmm bmm mm matmul
scaled_dot_product_attention batch_norm group_norm instance_norm layer_norm
dropout dropout_ feature_dropout feature_dropout_ alpha_dropout
celu celu_ elu elu_ gelu glu hardsigmoid hardsigmoid_ hardswish hardswish_ hardtanh hardtanh_
leaky_relu leaky_relu_ log_sigmoid mish mish_ prelu relu relu6 relu6_ relu_ selu selu_ sigmoid
sigmoid_ silu silu_ softplus softmax log_softmax tanh tanh_ threshold threshold_
abs add add_ addcdiv addcmul ceil clamp clamp_ clamp_max clamp_min cos div div_ erf exp exp_
expm1 floor floor_divide fmod lerp log log1p log2 maximum minimum mul mul_ neg pow reciprocal
remainder round rsqrt rsub sign sin sqrt square sub sub_ trunc where
eq ge gt le logical_and logical_not logical_or lt ne
all amax amin any argmax argmin cumsum linalg_vector_norm max mean min norm prod std sum topk var
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool2d avg_pool2d max_pool2d
upsample_bicubic2d upsample_bilinear2d upsample_nearest2d
cat channel_shuffle chunk constant_pad_nd contiguous dim expand expand_as flatten flip gather
index index_select meshgrid movedim narrow numel pad permute pixel_shuffle pixel_unshuffle
reflection_pad2d repeat replication_pad2d reshape roll select size slice split split_with_sizes
squeeze stack swapaxes t tile transpose unbind unflatten unsqueeze view
arange full full_like new_full new_ones new_zeros ones ones_like scalar_tensor zeros zeros_like
IntImplicit ScalarImplicit clone detach device to type_as
"""
BUILTINS = frozenset({"annotate", "getattr", "int", "float", "bool"})
PRIMITIVES = frozenset({"NumToTensor"})  # of ``ops.prim``
TENSOR_FUNCTIONS = frozenset(_NAMES.split())  # of ``torch``
