"""The only package that uses private names of Keras: why each, and what happens without it.

| name | why | when it is missing |
| --- | --- | --- |
| `serialize_with_public_class` | a class's name as Keras writes it, without an instance | import error that says which Keras versions work |
| `Functional`, `functional_like_constructor` | tell a graph of layers from other models | import error that says which Keras versions work |
| `serialize_node`, `make_node_key`, `Functional._nodes`, `._inputs_struct`, `._outputs_struct`, `Sequential._functional` | a model's config without a deep copy of it for each nested model | import error of a function, attribute error of an attribute |
| `Function._inputs`, `._operations` and the like, `Layer._inbound_nodes`, `Node`, `KerasTensor._keras_history`, `map_graph` | give a copied model the graph that `clone_model` has walked, with its calls in their order | the same |
| `Layer._trainable_variables`, `._non_trainable_variables`, `._seed_generators`, `._layers`, `._metrics`, `Tracked*` | the only view that keeps who owns which variable and in which order | the same |
| `Variable._value`, `._initialize`, `._layout` | a copied variable of the same options that lies where its original does, without an initializer | attribute error |
| `Layer._losses`, `._loss_ids`, `._called` | a copy that has the losses of the last call, as its original; a model whose author set `built` | `_called` is taken for true |
| `Variable._shape`, `._dtype` | a shape that is a plain tuple, and a dtype, without asking the backend | `shape` and `dtype` are asked |
| `Optimizer._use_weight_decay`, `._apply_weight_decay`, `._exclude_from_weight_decay*`, `._var_key`, `._optimizer_map`, `._learning_rate`, `._get_variable_index`, `._track_variable` | which weights an optimizer decays, by what, and towards what | attribute error |
| `Layer._remat_mode`, `Trainer._run_eagerly`, `._jit_compile`, `._distribute_strategy` | how a layer computes, which no config tells | not compared |
| `global_state` | names' counters and seeds as they were before a rewrite | import error |
| the modules `keras.src.saving` and `keras.src.legacy.saving` | whether Keras asks for a config to save it | a model that saves itself in a method of its own loses its penalties, with a warning |
| TensorFlow's `Function._clone`, `MutableHashTable._default_value`, `_DefaultDistributionStrategy`, `_DictWrapper._update_snapshot`, `_self_unconditional_*` | a function, a table and a tracked dict of their own for a copy | attribute error |
| PyTorch's `Tensor._backward_hooks`, `._post_accumulate_grad_hooks` | a copied weight whose gradients are masked as its original's | no hook is copied |
"""  # noqa: E501 # a table row can't be broken

from __future__ import annotations

import keras

from graphwd.errors import GraphwdError

try:
    from graphwd.live._keras.graphs import CALLS as CALLS
    from graphwd.live._keras.graphs import GRAPH as GRAPH
    from graphwd.live._keras.graphs import HISTORY as HISTORY
    from graphwd.live._keras.graphs import Node as Node
    from graphwd.live._keras.graphs import constants_of as constants_of
    from graphwd.live._keras.graphs import graph_config as graph_config
    from graphwd.live._keras.graphs import inputs_of as inputs_of
    from graphwd.live._keras.graphs import is_functional as is_functional
    from graphwd.live._keras.graphs import is_graph as is_graph
    from graphwd.live._keras.graphs import maker as maker
    from graphwd.live._keras.graphs import members as members
    from graphwd.live._keras.graphs import order_calls as order_calls
    from graphwd.live._keras.graphs import paired_calls as paired_calls
    from graphwd.live._keras.graphs import plain_graph as plain_graph
    from graphwd.live._keras.graphs import wiring as wiring
    from graphwd.live._keras.layers import HDF5 as HDF5
    from graphwd.live._keras.layers import LAYERS as LAYERS
    from graphwd.live._keras.layers import LOSSES as LOSSES
    from graphwd.live._keras.layers import SAVING as SAVING
    from graphwd.live._keras.layers import TRACKED as TRACKED
    from graphwd.live._keras.layers import VALUE as VALUE
    from graphwd.live._keras.layers import Tracker as Tracker
    from graphwd.live._keras.layers import changed_inside as changed_inside
    from graphwd.live._keras.layers import dtype_of as dtype_of
    from graphwd.live._keras.layers import empty_table as empty_table
    from graphwd.live._keras.layers import give_hooks as give_hooks
    from graphwd.live._keras.layers import hide_states as hide_states
    from graphwd.live._keras.layers import identity as identity
    from graphwd.live._keras.layers import initialize as initialize
    from graphwd.live._keras.layers import is_default_strategy as is_default_strategy
    from graphwd.live._keras.layers import keep_layout as keep_layout
    from graphwd.live._keras.layers import lasting as lasting
    from graphwd.live._keras.layers import modes as modes
    from graphwd.live._keras.layers import own_variables as own_variables
    from graphwd.live._keras.layers import set_strategy as set_strategy
    from graphwd.live._keras.layers import set_value as set_value
    from graphwd.live._keras.layers import shape_of as shape_of
    from graphwd.live._keras.layers import show_state as show_state
    from graphwd.live._keras.layers import states as states
    from graphwd.live._keras.layers import stores as stores
    from graphwd.live._keras.layers import sublayers as sublayers
    from graphwd.live._keras.layers import traced_anew as traced_anew
    from graphwd.live._keras.layers import unchanged_globals as unchanged_globals
    from graphwd.live._keras.layers import value_of as value_of
    from graphwd.live._keras.layers import was_called as was_called
    from graphwd.live._keras.optimizers import OwnDecay as OwnDecay
    from graphwd.live._keras.optimizers import decay_of as decay_of
    from graphwd.live._keras.optimizers import excluded_from_decay as excluded_from_decay
    from graphwd.live._keras.optimizers import index_of as index_of
    from graphwd.live._keras.optimizers import is_decayed as is_decayed
    from graphwd.live._keras.optimizers import is_listed as is_listed
    from graphwd.live._keras.optimizers import iterations_of as iterations_of
    from graphwd.live._keras.optimizers import key_of as key_of
    from graphwd.live._keras.optimizers import learning_rate_of as learning_rate_of
    from graphwd.live._keras.optimizers import optimized_variables as optimized_variables
    from graphwd.live._keras.optimizers import optimizer_map as optimizer_map
    from graphwd.live._keras.optimizers import optimizer_of as optimizer_of
    from graphwd.live._keras.optimizers import track_variable as track_variable
except ImportError as error:
    raise GraphwdError(
        f"Keras {keras.__version__} is laid out in a way that graphwd does not know ({error}); "
        "graphwd is tested with Keras 3.13 and 3.15."
    ) from error
