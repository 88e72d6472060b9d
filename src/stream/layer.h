/* SPDX-License-Identifier: MIT
 * Streams over streams, for codecs in plugins; see plugin/layer.h. */
#ifndef ASIO_STREAM_LAYER_H
#define ASIO_STREAM_LAYER_H

#include "plugin/layer.h"

extern const struct asio_plugin_layer asio_layer;

#endif
