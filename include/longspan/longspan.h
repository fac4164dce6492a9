/* Longspan: Transformer attention over sequences too long for one process.
 *
 *   context.h    communicator, threads, errors
 *   tensor.h     tensors in HDF5, read and written by all ranks together
 *   attention.h  plan and execute
 *   layer.h      projections, heads, attention, output projection
 *   checkpoint.h stop an execution, save its state, go on
 *   operator.h   W X and W^T Y, W never formed
 *   svd.h        truncated SVD of W with a certificate
 *   topk.h       what the method topk kept
 *   lowrank.h    what the method lowrank left out
 *   compare.h    approximations beside the exact answer
 *   map.h        what heads attend to: pictures, figures, links
 *   study.h      verify, merge, generate, measure
 *   plan.h       what a run will take
 *   foreign.h    tensors in safetensors and .npy files
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LONGSPAN_LONGSPAN_H
#define LONGSPAN_LONGSPAN_H

#include <longspan/attention.h>
#include <longspan/checkpoint.h>
#include <longspan/compare.h>
#include <longspan/context.h>
#include <longspan/foreign.h>
#include <longspan/layer.h>
#include <longspan/lowrank.h>
#include <longspan/map.h>
#include <longspan/operator.h>
#include <longspan/plan.h>
#include <longspan/status.h>
#include <longspan/study.h>
#include <longspan/svd.h>
#include <longspan/tensor.h>
#include <longspan/topk.h>

#endif
