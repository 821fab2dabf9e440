"""Wrong edits, and the test that catches each of them.

    python -m tests.experiments.mutants                  # all of them: about 20 minutes
    python -m tests.experiments.mutants --only lift.py   # those whose file or words hold this text

A test is worth something if it fails when the code is wrong. Each entry of MUTANTS is an edit that
a student or a hurried maintainer might make: a lost sign, a wrong axis, an index that is off by
one. The program copies the files that git knows into a temporary folder and runs all named tests
there. They must pass. Then it makes one edit after the other, runs the test that is named for it,
and takes the edit back. The test must fail. Where it passes, the edit has survived, and a test is
missing.

The output is a table in Markdown. The exit status is 1 if an edit survived. docs/results/mutants.md
holds the last result.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from data.common import BadInput, exit_status

ROOT = Path(__file__).parent.parent.parent


class Mutant(NamedTuple):
    """One wrong edit."""

    file: str
    old: str  # occurs exactly once in the file
    new: str
    test: str  # pytest's name of the test that must fail
    wrong: str  # what is wrong with the edit, in words


PIXELS = "data/images/pixels.py"
READ = "data/images/read.py"
TOKENIZER = "data/files/tokenizer.py"
TENSORS = "data/files/tensors.py"
LLM = "data/files/llm.py"
SHAPES = "data/world/shapes.py"
# Tests.
T_VIT = "tests/test_vit.py::"
T_LLM_TEXT = "tests/test_llm_text.py::"
T_TUNE = "tests/test_tune.py::"
T_LIFT = "tests/test_lift.py::"
T_TRAIN = "tests/test_train.py::"
T_EVAL = "tests/test_eval.py::"
T_BENCHMARKS = "tests/data/test_benchmarks.py::"
T_BATCHES = "tests/data/test_batches.py::"
T_CAPTIONS = "tests/data/test_captions.py::"
T_PROCESSES = "tests/data/test_processes.py::"
T_VECTORS = "tests/data/test_vectors.py::"
T_PIXELS = "tests/data/images/test_pixels.py::"
T_READ = "tests/data/images/test_read.py::"
T_TOKENIZER = "tests/data/files/test_tokenizer.py::"
T_TENSORS = "tests/data/files/test_tensors.py::"
T_LLM = "tests/data/files/test_llm.py::"
T_SWEEP = "tests/data/test_sweep.py::"
T_SHAPES = "tests/data/world/test_shapes.py::"

MUTANTS = [
    # ---- The image tower.
    Mutant(
        "vit.py",
        "q, k, v, is_causal=self.causal",
        "q, k, v, is_causal=False",
        T_VIT + "test_attention_by_hand[True]",
        "no causal mask in the text transformer",
    ),
    Mutant(
        "vit.py",
        "q, k, v, is_causal=self.causal",
        "q, k, v, is_causal=self.causal, scale=1.0",
        T_VIT + "test_attention_by_hand[False]",
        "attention without 1 / sqrt(d)",
    ),
    Mutant(
        "vit.py",
        "q, k, v = qkv.permute(2, 0, 3, 1, 4)",
        "k, q, v = qkv.permute(2, 0, 3, 1, 4)",
        T_VIT + "test_attention_by_hand[False]",
        "queries and keys exchanged",
    ),
    Mutant(
        "vit.py",
        "self.proj(y.transpose(1, 2).reshape(B, N, D))",
        "self.proj(y.reshape(B, N, D))",
        T_VIT + "test_attention_by_hand[False]",
        "heads mixed with positions",
    ),
    Mutant(
        "vit.py",
        "self.mlp(self.norm2(self.adapter2(x)))",
        "self.mlp(self.norm1(self.adapter2(x)))",
        T_VIT + "test_a_block_by_hand",
        "the first norm before the MLP as well",
    ),
    Mutant(
        "vit.py",
        "x = x + self.mlp(",
        "x = self.mlp(",
        T_VIT + "test_a_block_by_hand",
        "the MLP's input is not added to its output",
    ),
    Mutant(
        "vit.py",
        "x.permute(0, 2, 4, 1, 3, 5)",
        "x",
        T_VIT + "test_patches_are_those_of_a_convolution",
        "numbers of different patches mixed",
    ),
    Mutant(
        "vit.py",
        "self.norm_pre(x + self.pos_embed)",
        "self.norm_pre(x)",
        T_VIT + "test_the_tower_is_its_parts[-avg]",
        "no position embeddings",
    ),
    Mutant(
        "vit.py",
        "self.norm_pre(x + self.pos_embed)",
        "self.norm_pre(x) + self.pos_embed",
        T_VIT + "test_the_tower_is_its_parts[-clip-avg]",
        "positions added behind CLIP's first norm",
    ),
    Mutant(
        "vit.py",
        'x[:, 0] if self.pool == "tok"',
        'x[:, -1] if self.pool == "tok"',
        T_VIT + "test_the_tower_is_its_parts[-tok]",
        "the last patch read in place of the class token",
    ),
    Mutant(
        "vit.py",
        "else x.mean(1)",
        "else x.sum(1)",
        T_VIT + "test_the_tower_is_its_parts[-avg]",
        "the sum of the patches in place of their mean",
    ),
    # ---- The language model.
    Mutant(
        "llm_text.py",
        "y.pow(2).mean(-1, keepdim=True)",
        "y.pow(2).sum(-1, keepdim=True)",
        T_LLM_TEXT + "test_rms_norm_by_hand",
        "RMSNorm divides by the length, not by the root of the mean",
    ),
    Mutant(
        "llm_text.py",
        "torch.cat((-second, first), dim=-1)",
        "torch.cat((second, -first), dim=-1)",
        T_LLM_TEXT + "test_rotation_by_hand",
        "RoPE turns the other way",
    ),
    Mutant(
        "llm_text.py",
        "torch.arange(0, config.head_dim, 2,",
        "torch.arange(2, config.head_dim + 2, 2,",
        T_LLM_TEXT + "test_the_model_is_its_parts",
        "RoPE's frequencies off by one pair",
    ),
    Mutant(
        "llm_text.py",
        "visible, is_causal=causal, enable_gqa",
        "visible, is_causal=False, enable_gqa",
        T_LLM_TEXT + "test_the_model_is_causal",
        "no causal mask in the language model",
    ),
    Mutant(
        "llm_text.py",
        "k = rotate(k, cos, sin)",
        "k = k",
        T_LLM_TEXT + "test_attention_by_hand[False]",
        "keys are not turned",
    ),
    Mutant(
        "llm_text.py",
        "F.silu(self.gate_proj(x)) * self.up_proj(x)",
        "self.gate_proj(x) * F.silu(self.up_proj(x))",
        T_LLM_TEXT + "test_the_gated_network_by_hand",
        "gate and content exchanged",
    ),
    Mutant(
        "llm_text.py",
        "self.mlp(self.post_attention_layernorm(",
        "self.mlp(self.input_layernorm(",
        T_LLM_TEXT + "test_the_model_is_its_parts",
        "the first norm of a block used twice",
    ),
    Mutant(
        "llm_text.py",
        "for block in self.layers[:layer]:",
        "for block in self.layers[: layer and layer + 1]:",
        T_LLM_TEXT + "test_the_model_is_its_parts",
        "read one block too late",
    ),
    Mutant(
        "llm_text.py",
        "is_last = layer is None or layer == self.config.depth",
        "is_last = layer is None",
        T_LLM_TEXT + "test_the_model_is_its_parts",
        "no final norm where the last block is named",
    ),
    Mutant(
        "llm_text.py",
        "mask[:, None, None, :] if self.bidirectional",
        "mask[:, None, :, None] if self.bidirectional",
        T_LLM_TEXT + "test_in_both_directions_a_token_sees_the_caption_and_no_padding",
        "in both directions the padding is seen",
    ),
    Mutant(
        "llm_text.py",
        "last = mask.sum(1) - 1",
        "last = torch.full_like(mask.sum(1), mask.shape[1] - 1)",
        T_LLM_TEXT + "test_pooling_by_hand",
        "the last token is that of the padding",
    ),
    Mutant(
        "llm_text.py",
        "kept[:, 0] = False",
        "kept[:, 0] = True",
        T_LLM_TEXT + "test_pooling_by_hand",
        "the start token counts in the mean",
    ),
    Mutant(
        "llm_text.py",
        "(mask.sum(1, keepdim=True) - 1)",
        "mask.sum(1, keepdim=True)",
        T_LLM_TEXT + "test_pooling_by_hand",
        "the mean divides by one token too many",
    ),
    Mutant(
        "llm_text.py",
        "covariance = moments / N - torch.outer(mean, mean)",
        "covariance = moments / N",
        T_LLM_TEXT + "test_whitened_vectors_have_mean_zero_and_variance_one",
        "the directions of whitening found without centring",
    ),
    Mutant(
        "llm_text.py",
        "matrix = V / variance.sqrt() ** power",
        "matrix = V / variance**power",
        T_LLM_TEXT + "test_whitened_vectors_have_mean_zero_and_variance_one",
        "whitening divides by the variance, not by the deviation",
    ),
    Mutant(
        "llm_text.py",
        "V = V[:, -directions:].flip(1)",
        "V = V[:, :directions].flip(1)",
        T_LLM_TEXT + "test_whitened_vectors_have_mean_zero_and_variance_one",
        "whitening keeps the weakest directions",
    ),
    Mutant(
        "llm_text.py",
        "V = V[:, -directions:].flip(1)",
        "V = V[:, -directions:]",
        T_LLM_TEXT + "test_whitened_vectors_have_mean_zero_and_variance_one",
        "directions and variances in opposite order",
    ),
    Mutant(
        "llm_text.py",
        "smallest = 1e-9 * variance[0]",
        "smallest = -1.0",
        T_LLM_TEXT + "test_whitening_to_too_many_directions_is_refused",
        "an empty direction enlarged to noise",
    ),
    Mutant(
        "llm_text.py",
        "matrix = before @ matrix",
        "matrix = matrix",
        T_LLM_TEXT + "test_whitening_with_the_scatter_within_solves_the_problem_of_fisher",
        "LDA's first map left out of the matrix",
    ),
    Mutant(
        "llm_text.py",
        "x -= (means / sizes[:, None])[image]",
        "x -= x.mean(0)",
        T_LLM_TEXT + "test_the_scatter_within_images_is_that_of_their_captions_about_their_mean",
        "scatter about the mean of all, not of each image",
    ),
    Mutant(
        "llm_text.py",
        "mask[row, : len(list_)] = True",
        "mask[row, : len(list_)] = torch.tensor(list_) > 0",
        T_LLM_TEXT + "test_the_token_of_number_0_is_no_padding",
        "token 0 taken for padding",
    ),
    Mutant(
        "llm_text.py",
        "self.scale = alpha / rank",
        "self.scale = alpha",
        T_TUNE + "test_lora_by_hand",
        "LoRA without its 1 / r",
    ),
    Mutant(
        "llm_text.py",
        "nn.init.zeros_(self.lora_B.weight)",
        "nn.init.ones_(self.lora_B.weight)",
        T_TUNE + "test_fresh_lora_changes_nothing_and_covers_every_linear_layer",
        "LoRA changes the model before it is trained",
    ),
    Mutant(
        "llm_text.py",
        "weight.float() + adapter.scale * (B @ A)",
        "weight.float() + B @ A",
        T_TUNE + "test_merged_equals_unmerged[False]",
        "an adapter merged without its scale",
    ),
    Mutant(
        "llm_text.py",
        "logits = scale * first @ second.T",
        "logits = first @ second.T",
        T_TUNE + "test_caption_loss_is_one_way_with_scale_50",
        "tuning without temperature",
    ),
    Mutant(
        "llm_text.py",
        "n_as_near = (scores >= partner).sum(1)",
        "n_as_near = 1 + (scores > partner).sum(1)",
        T_TUNE + "test_caption_retrieval_by_hand",
        "ties count as right in caption retrieval",
    ),
    Mutant(
        "llm_text.py",
        "duplicates[i, j] = text in drawn[i].group",
        "duplicates[i, j] = False",
        T_TUNE + "test_texts_of_other_sources_and_hard_negatives_that_are_true_are_masked",
        "a hard negative that is true of another row is no duplicate",
    ),
    Mutant(
        "llm_text.py",
        "in_order = torch.tensor(order, device=llm.device).argsort()",
        "in_order = torch.tensor(order, device=llm.device)",
        T_TUNE + "test_tuning_reads_each_text_in_its_place",
        "vectors of tuning in another order than their texts",
    ),
    Mutant(
        "llm_text.py",
        "= lr * warmup * (1 - step / steps)",
        "= lr * warmup",
        T_TUNE + "test_the_rate_of_tuning_rises_and_falls_and_each_step_has_its_own_gradient",
        "the rate of tuning does not fall",
    ),
    # ---- Losses.
    Mutant(
        "lift.py",
        "text_to_image = F.cross_entropy(logits.T, target)",
        "text_to_image = F.cross_entropy(logits, target)",
        T_LIFT + "test_info_nce_by_hand",
        "InfoNCE in one direction only",
    ),
    Mutant(
        "lift.py",
        "logits = logit_scale.float() * image_features.float() @ text_features.float().T",
        "logits = image_features.float() @ text_features.float().T",
        T_LIFT + "test_info_nce_by_hand",
        "InfoNCE without its scale",
    ),
    Mutant(
        "lift.py",
        "logits.masked_fill(duplicates & off_diagonal, -torch.inf)",
        "logits.masked_fill(duplicates.triu() & off_diagonal, -torch.inf)",
        T_LIFT + "test_info_nce_leaves_duplicates_out",
        "duplicates masked on one side of the diagonal only",
    ),
    Mutant(
        "lift.py",
        "logits.masked_fill(duplicates & off_diagonal, -torch.inf)",
        "logits.masked_fill(duplicates & off_diagonal, 0.0)",
        T_LIFT + "test_info_nce_leaves_duplicates_out",
        "duplicates get the logit 0 and stay in the softmax",
    ),
    Mutant(
        "lift.py",
        "F.logsigmoid(torch.where(is_true, logits, -logits))",
        "F.logsigmoid(torch.where(is_true, -logits, logits))",
        T_LIFT + "test_sigmoid_loss_by_hand",
        "sign of the sigmoid loss",
    ),
    Mutant(
        "lift.py",
        "-log_probability.sum() / len(logits)",
        "-log_probability.mean()",
        T_LIFT + "test_sigmoid_loss_by_hand",
        "the sigmoid loss divided by B^2, not by B",
    ),
    Mutant(
        "lift.py",
        "return 1 - (image_features.float()",
        "return 1 + (image_features.float()",
        T_LIFT + "test_cosine_loss_by_hand",
        "sign of the cosine loss",
    ),
    Mutant(
        "lift.py",
        "target = weights / total.clamp_min(1e-12)",
        "target = weights",
        T_LIFT + "test_label_loss_by_hand",
        "labels of a caption do not add up to 1",
    ),
    Mutant(
        "lift.py",
        "(total > 0).sum().clamp_min(1)",
        "len(total)",
        T_LIFT + "test_label_loss_by_hand",
        "captions without labels count in the mean",
    ),
    # ---- Heads and towers.
    Mutant(
        "lift.py",
        "nn.Sequential(nn.Linear(d_in, d_out), nn.GELU(), nn.Linear(d_out, d_out))",
        "nn.Sequential(nn.Linear(d_in, d_out), nn.Identity(), nn.Linear(d_out, d_out))",
        T_LIFT + "test_heads_by_hand",
        "LIFT's head without its nonlinearity",
    ),
    Mutant(
        "train.py",
        "yield model.text(text), model.encode_image(image, normalize=True)",
        "yield model.text(text), model.encode_image(image)",
        T_TRAIN + "test_a_matrix_is_solved_for_on_the_text_side_of_a_run",
        "lift_ridge: features of images as long as they come",
    ),
    Mutant(
        "train.py",
        '"resume": "", "unlock": "", "init_from": ""}',
        '"resume": "", "init_from": ""}',
        T_TRAIN + "test_a_run_with_a_matrix_has_the_settings_of_its_run",
        "lift_ridge: the parts that its run unlocked are trained again",
    ),
    Mutant(
        "lift.py",
        "return Ridge(d_in, d_out, share=0.2)",
        "return Ridge(d_in, d_out)",
        T_TRAIN + "test_a_matrix_is_solved_for_on_the_text_side_of_a_run",
        "lift_ridge: the penalty of ridge",
    ),
    Mutant(
        "lift.py",
        "ridge = self.share * XX.trace() / len(XX)",
        "ridge = self.share * XX.trace()",
        T_LIFT + "test_ridge_is_least_squares_with_a_penalty",
        "ridge: the trace in place of the mean eigenvalue",
    ),
    Mutant(
        "lift.py",
        "return x + self.net(x)",
        "return self.net(x)",
        T_LIFT + "test_adaptor_normalises_first_and_has_four_residual_blocks",
        "LLM2CLIP's residual block without its input",
    ),
    Mutant(
        "lift.py",
        "return summed / is_real.sum(1).clamp_min(1)",
        "return summed / tokens.shape[1]",
        T_LIFT + "test_token_heads_leave_padding_out",
        "padding counts in APE's mean",
    ),
    Mutant(
        "lift.py",
        "nn.init.zeros_(self.up.weight)",
        "pass",
        T_LIFT + "test_fresh_adapters_change_nothing",
        "LilT's adapters change the towers before training",
    ),
    Mutant(
        "lift.py",
        "(vectors.float() - self.mean) @ self.matrix",
        "vectors.float() @ self.matrix",
        T_LIFT + "test_llm_vectors_are_whitened_training_captions",
        "LIFT's text vectors are not centred",
    ),
    Mutant(
        "lift.py",
        "tokens = tokens[(tokens != 0).any(-1)]",
        "tokens = tokens",
        T_LIFT + "test_llm_tokens_have_unit_variance_and_keep_their_padding",
        "padding counts in the statistics of tokens",
    ),
    Mutant(
        "lift.py",
        "torch.where(vocab[position] == ids, position, len(vocab))",
        "position",
        T_LIFT + "test_unknown_ids_get_the_place_after_the_vocabulary",
        "an unknown token taken for a neighbour",
    ),
    Mutant(
        "lift.py",
        "end = (ids == END).int().argmax(1)",
        "end = (ids == END).int().argmax(1) - 1",
        T_LIFT + "test_text_transformer_is_read_where_the_first_end_stands",
        "CLIP's text read at its last word, not at END",
    ),
    Mutant(
        "lift.py",
        "Block(width, sizes.text_heads, causal=True)",
        "Block(width, sizes.text_heads, causal=False)",
        T_LIFT + "test_text_transformer_reads_up_to_its_end_and_knows_unknown_words",
        "CLIP's text transformer sees padding",
    ),
    Mutant(
        "lift.py",
        "is_token = ids >= 0  # (B, L) bool",
        "is_token = ids >= END  # (B, L) bool",
        T_LIFT + "test_live_llm_is_the_mean_of_its_first_blocks",
        "END counts as a token in LilT's mean",
    ),
    Mutant(
        "lift.py",
        "(counts < len(inputs))",
        "(counts <= len(inputs))",
        T_LIFT + "test_labels_are_tokens_and_neighbouring_pairs",
        "a label that all captions hold is kept",
    ),
    Mutant(
        "lift.py",
        "F.normalize(x.float(), dim=-1)",
        "F.normalize(x.float(), dim=0)",
        T_LIFT + "test_adaptor_normalises_first_and_has_four_residual_blocks",
        "unit length over the batch, not over a vector",
    ),
    # ---- The table of methods, and the model.
    Mutant(
        "lift.py",
        "init_linears(self.text_head)",
        "pass",
        T_LIFT + "test_linear_layers_start_as_glorot_and_bengio_say[clip]",
        "the text head starts with PyTorch's own weights",
    ),
    Mutant(
        "lift.py",
        "text_head=adaptor,\n        loss=info_nce,\n        image_lr_share=0.1,",
        "text_head=adaptor,\n        loss=info_nce,",
        T_LIFT + "test_each_method_is_what_its_paper_says[llm2clip]",
        "LLM2CLIP's image tower learns at the full rate",
    ),
    Mutant(
        "lift.py",
        '"sharelock": Method(',
        '"sharelocked": Method(',
        T_LIFT + "test_each_method_is_what_its_paper_says[sharelock]",
        "a row of the table is missing",
    ),
    Mutant(
        "lift.py",
        "text_head=deep_mlp,",
        "text_head=projection,",
        T_LIFT + "test_each_method_is_what_its_paper_says[sharelock]",
        "ShareLock with another head",
    ),
    Mutant(
        "lift.py",
        "loss=cosine_loss,",
        "loss=info_nce,",
        T_LIFT + "test_each_method_is_what_its_paper_says[lift_cos]",
        "LIFT's cosine loss replaced by InfoNCE",
    ),
    Mutant(
        "lift.py",
        'trains=("text", "text_head", "logit_scale"),\n        image_head=no_head,\n'
        "        text_head=projection,",
        'trains=("visual", "text", "text_head", "logit_scale"),\n        image_head=no_head,\n'
        "        text_head=projection,",
        T_LIFT + "test_exactly_the_declared_parameters_change[lit-]",
        "LiT trains its locked image tower",
    ),
    Mutant(
        "lift.py",
        '"norm" in parameter or "ln_final" in parameter',
        '"norm" in parameter',
        T_LIFT + "test_parts_of_the_model_by_name",
        "the text transformer's last norm is no norm",
    ),
    Mutant(
        "lift.py",
        "parameter.requires_grad_(is_trained)",
        "parameter.requires_grad_(True)",
        T_LIFT + "test_exactly_the_declared_parameters_change[lit-]",
        "nothing is frozen",
    ),
    Mutant(
        "lift.py",
        "part.train(mode and is_trained)",
        "part.train(mode)",
        T_LIFT + "test_exactly_the_declared_parameters_change[ape-]",
        "a frozen tower is put into training mode",
    ),
    Mutant(
        "lift.py",
        '"logit_scale": self.logit_scale.exp(),',
        '"logit_scale": self.logit_scale,',
        T_LIFT + "test_features_have_unit_length_and_scale_is_exponentiated[clip]",
        "the scale is its logarithm",
    ),
    Mutant(
        "lift.py",
        '"text_features": self.encode_text(texts, normalize=True),',
        '"text_features": self.encode_text(texts),',
        T_LIFT + "test_features_have_unit_length_and_scale_is_exponentiated[lift]",
        "text features without unit length",
    ),
    Mutant(
        "lift.py",
        'if not tokenize.still_matches(saved["text_fingerprint"]):',
        "if not tokenize.fingerprint:",
        T_LIFT + "test_load_refuses_another_language_model_and_keeps_the_pooling",
        "a run loads with another language model",
    ),
    Mutant(
        "lift.py",
        "gradient[start:end] if tensor.ndim",
        "gradient[: end - start] if tensor.ndim",
        T_LIFT + "test_a_batch_in_pieces_has_the_gradient_of_the_whole[clip-2]",
        "every piece gets the gradients of the first one",
    ),
    Mutant(
        "lift.py",
        "else gradient / n_all",
        "else gradient",
        T_LIFT + "test_a_batch_in_pieces_has_the_gradient_of_the_whole[clip-2]",
        "each piece adds the gradient of the scale",
    ),
    Mutant(
        "train.py",
        "model, loss_of, inputs, duplicates, cfg.accum_freq, autocast",
        "model, loss_of, inputs, duplicates, 1, autocast",
        T_TRAIN + "test_a_run_in_pieces_has_the_losses_of_a_plain_one[lift]",
        "--accum-freq cuts no batch",
    ),
    # ---- Training.
    Mutant(
        "train.py",
        "cfg.train_num_samples, bool(cfg.val_data), ",
        "cfg.train_num_samples, True, ",
        T_TRAIN + "test_held_out_images_are_not_trained_on",
        "held-out images of --data are trained on",
    ),
    Mutant(
        "train.py",
        '"image_fingerprint": image_inputs.fingerprint,',
        '"image_fingerprint": "",',
        T_LIFT + "test_load_refuses_other_vectors_of_images",
        "a run does not keep whose image vectors it had",
    ),
    Mutant(
        "train.py",
        "cfg.steps or math.inf, cfg.epochs * batches",
        "cfg.steps or math.inf, 4 * batches",
        T_TRAIN + "test_a_run_has_its_epochs_but_no_more_than_its_steps[flags0-12]",
        "--epochs is ignored",
    ),
    Mutant(
        "train.py",
        "power=cfg.whiten_power",
        "power=0.5",
        T_TRAIN + "test_whitening_gets_its_flags[flags0-0.3]",
        "--whiten-power is ignored",
    ),
    Mutant(
        "train.py",
        'PIXEL_NORMS[cfg.image_norm], PIXEL_NORMS["clip"])',
        'PIXEL_NORMS["clip"], PIXEL_NORMS[cfg.image_norm])',
        T_TRAIN + "test_a_pretrained_tower_and_the_shared_space_get_their_flags",
        "the norm of pixels translated the wrong way round",
    ),
    Mutant(
        "train.py",
        "torch.manual_seed(cfg.seed)",
        "torch.manual_seed(0)",
        T_TRAIN + "test_the_seed_decides_the_first_weights",
        "the seed does not decide the first weights",
    ),
    Mutant(
        "train.py",
        "return cfg.lr * (step + 1) / warmup",
        "return cfg.lr * step / warmup",
        T_TRAIN + "test_schedule",
        "the first step of warm-up has the rate 0",
    ),
    Mutant(
        "train.py",
        "(step - warmup) / (total - warmup)",
        "step / max(1, total)",
        T_TRAIN + "test_schedule",
        "the cosine does not begin where warm-up ends",
    ),
    Mutant(
        "train.py",
        "warmup = min(cfg.warmup, total // 10)",
        "warmup = cfg.warmup",
        T_TRAIN + "test_schedule",
        "warm-up may be longer than the run",
    ),
    Mutant(
        "train.py",
        "decay = wd if parameter.ndim == 2 else 0.0",
        "decay = wd",
        T_LIFT + "test_optimizer_gets_every_trained_parameter_once_and_decays_matrices_only",
        "weight decay on everything",
    ),
    Mutant(
        "train.py",
        "decay = wd if parameter.ndim == 2 else 0.0",
        "decay = wd if parameter.ndim >= 2 else 0.0",
        T_LIFT + "test_optimizer_gets_every_trained_parameter_once_and_decays_matrices_only",
        "weight decay on position embeddings",
    ),
    Mutant(
        "train.py",
        'image_lr_share if name.startswith("visual.") else 1.0',
        "image_lr_share",
        T_LIFT + "test_optimizer_gets_every_trained_parameter_once_and_decays_matrices_only",
        "the image tower's rate everywhere",
    ),
    Mutant(
        "train.py",
        'rate * group["lr_share"]',
        "rate",
        T_TRAIN + "test_the_optimizer_gets_its_flags_and_the_methods_share_of_the_rate",
        "the image tower's own rate is ignored",
    ),
    Mutant(
        "train.py",
        "betas=(cfg.beta1, cfg.beta2),",
        "betas=(cfg.beta1, 0.98),",
        T_TRAIN + "test_the_optimizer_gets_its_flags_and_the_methods_share_of_the_rate",
        "--beta2 is ignored",
    ),
    Mutant(
        "train.py",
        "eps=cfg.eps,",
        "",
        T_TRAIN + "test_the_optimizer_gets_its_flags_and_the_methods_share_of_the_rate",
        "--eps is ignored",
    ),
    Mutant(
        "train.py",
        "cfg.grad_clip_norm or math.inf",
        "math.inf",
        T_TRAIN + "test_gradients_are_clipped_to_the_norm_that_was_asked_for",
        "gradients are never clipped",
    ),
    Mutant(
        "train.py",
        "optimizer.zero_grad(set_to_none=True)",
        "pass",
        T_TRAIN + "test_each_step_has_its_own_gradient",
        "gradients of all steps add up",
    ),
    Mutant(
        "train.py",
        "loss = loss_of(**features, duplicates=duplicates)",
        "loss = loss_of(**features, duplicates=torch.eye(len(text)).bool())",
        T_TRAIN + "test_the_loop_passes_duplicates_steps_the_rate_and_clamps",
        "duplicates do not reach the loss",
    ),
    Mutant(
        "lift.py",
        "clamp_(0, math.log(100))",
        "clamp_(0, 100)",
        T_TRAIN + "test_the_scale_stays_between_1_and_100",
        "the scale's limit is that of its logarithm",
    ),
    Mutant(
        "train.py",
        'start = checkpoint["step"]',
        'start = checkpoint["step"] + 1',
        T_TRAIN + "test_stop_and_resume_equals_one_run_bit_for_bit[lift]",
        "a resumed run leaves a step out",
    ),
    Mutant(
        "train.py",
        'optimizer.load_state_dict(checkpoint["optimizer"] | {"param_groups": groups})',
        "pass",
        T_TRAIN + "test_stop_and_resume_equals_one_run_bit_for_bit[lift]",
        "a resumed run forgets AdamW's moments",
    ),
    Mutant(
        "train.py",
        "FREE_ON_RESUME = (",
        'FREE_ON_RESUME = (\n    "seed",',
        T_TRAIN + "test_a_run_is_never_overwritten_nor_resumed_as_another",
        "a run may be resumed with another seed",
    ),
    Mutant(
        "train.py",
        "cfg.image_size, cfg.seed]",
        "cfg.image_size]",
        T_TRAIN + "test_other_views_of_a_frozen_tower_are_kept_apart",
        "views of another seed are taken for these",
    ),
    Mutant(
        "train.py",
        "settings = [cfg.model, n_views, cfg.crop_scale,",
        "settings = [cfg.model, n_views,",
        T_TRAIN + "test_other_views_of_a_frozen_tower_are_kept_apart",
        "views of another --crop-scale are taken for these",
    ),
    Mutant(
        "train.py",
        "few = max(n_captions // 4, min(n_captions // 2, 16))",
        "few = n_captions",
        T_TRAIN + "test_few_captions_are_whitened_to_a_quarter_of_their_number",
        "few captions whitened to as many directions",
    ),
    Mutant(
        "train.py",
        "whiten_power=0.0 if wants_lda(cfg) else 0.5",
        "whiten_power=0.5",
        T_TRAIN + "test_the_map_of_a_run_follows_the_captions_of_one_image",
        "LDA with the power of whitening",
    ),
    Mutant(
        "data/train_log.py",
        "return duplicates.gather(1, nearest)",
        "return torch.eye(len(duplicates)).gather(1, nearest)",
        T_TRAIN + "test_the_accuracy_of_the_log_takes_duplicates_for_right",
        "a duplicate counts as wrong in the log",
    ),
    # ---- Metrics.
    Mutant(
        "data/benchmarks.py",
        "texts += task.texts()",
        "pass",
        T_EVAL + "test_a_task_reads_all_its_texts_together_and_each_once",
        "texts of further questions are read later, one by one",
    ),
    Mutant(
        "eval.py",
        "false = false + run.encode_texts(",
        "false = run.encode_texts(",
        T_EVAL + "test_a_model_that_knows_all_scores_all",
        "of the false captions one end counts only",
    ),
    Mutant(
        "data/world/shapes.py",
        "if len(scene.things) != 2:",
        "if len(scene.things) < 2:",
        T_SHAPES + "test_both_ends_are_the_false_captions_and_the_same_told_from_the_other_end",
        "three things are asked about from both ends, where the order tells",
    ),
    Mutant(
        "eval.py",
        "inputs = normalize_pixels(torch.from_numpy(images.pixels(which)))",
        "inputs = normalize_pixels(torch.from_numpy(images.pixels(which - start)))",
        T_EVAL + "test_features_are_those_of_each_image_and_text_in_their_order[clip]",
        "each batch of the test has the first images again",
    ),
    Mutant(
        "eval.py",
        "is_behind = scores < best - TIE",
        "is_behind = scores <= best",
        T_EVAL + "test_collapsed_and_nan_models_score_nothing[1.0]",
        "ties count as right in retrieval",
    ),
    Mutant(
        "eval.py",
        "return (~is_behind & ~is_correct).sum(1)",
        "return ((scores >= best - TIE) & ~is_correct).sum(1)",
        T_EVAL + "test_collapsed_and_nan_models_score_nothing[nan]",
        "a model of NaN finds everything",
    ),
    Mutant(
        "eval.py",
        "is_behind = scores < best - TIE",
        "is_behind = scores < best",
        T_EVAL + "test_differences_of_rounding_are_ties",
        "rounding decides a tie",
    ),
    Mutant(
        "eval.py",
        "has_id[image_of_caption[in_chunk] - start,",
        "has_id[image_of_caption[in_chunk] % len(scores),",
        T_EVAL + "test_ranks_equal_sorting_a_full_matrix",
        "images of a later chunk counted from 0 again",
    ),
    Mutant(
        "eval.py",
        "is_correct[question, image_of_caption[equal_caption]] = True",
        "is_correct[question, image_of_caption[start + question]] = True",
        T_EVAL + "test_equal_captions_are_right_wherever_they_are",
        "an equal caption's image counts as wrong",
    ),
    Mutant(
        "eval.py",
        "return true_scores > false_scores + TIE",
        "return true_scores >= false_scores",
        T_EVAL + "test_compositional_is_strict",
        "ties count as right in composition",
    ),
    Mutant(
        "eval.py",
        "return not_behind.sum(1) <= k",
        "return not_behind.sum(1) < k",
        T_EVAL + "test_zeroshot_normalises_averages_normalises",
        "top-k is top-(k-1)",
    ),
    Mutant(
        "eval.py",
        "not_behind = ~(scores < right - TIE)",
        "not_behind = scores > right - TIE",
        T_EVAL + "test_collapsed_and_nan_models_score_nothing[nan]",
        "NaN counts as right in classification",
    ),
    Mutant(
        "eval.py",
        "image_score = (right[:, 0] > s[:, 1, 0]) & (right[:, 1] > s[:, 0, 1])",
        "image_score = (right[:, 0] > s[:, 0, 1]) & (right[:, 1] > s[:, 1, 0])",
        T_EVAL + "test_winoground_by_hand",
        "Winoground's image score is its text score",
    ),
    Mutant(
        "eval.py",
        "size[drawn].sum())\n    return np.percentile(means, (2.5, 97.5)).tolist()",
        "size[drawn].sum())\n    return np.percentile(means, (5, 95)).tolist()",
        T_EVAL + "test_interval_covers_and_respects_groups",
        "an interval of 90 % called 95 %",
    ),
    Mutant(
        "eval.py",
        "weight = times[words].prod(1)",
        "weight = times[words].sum(1)",
        T_EVAL + "test_an_interval_of_words_covers_what_other_words_would_have_given",
        "questions count by the sum of their words' draws",
    ),
    Mutant(
        "train.py",
        'captions = captions_of(cfg.data, "train", columns, *choice_of_images(cfg))',
        'captions = captions_of(cfg.data, "train", columns)',
        T_TRAIN + "test_the_map_of_own_data_follows_the_images_that_are_trained_on",
        "the map sees other images than training",
    ),
    Mutant(
        "eval.py",
        "else np.asarray(groups)",
        "else np.arange(len(hits))",
        T_EVAL + "test_interval_covers_and_respects_groups",
        "captions of one image drawn one by one",
    ),
    Mutant(
        "eval.py",
        "math.comb(n_answers - r, k)",
        "math.comb(n_answers - 1, k)",
        T_BENCHMARKS + "test_retrieval_by_hand",
        "chance with one right answer where there are several",
    ),
    Mutant(
        "eval.py",
        "score(i2t < k, chance)",
        "score(i2t <= k, chance)",
        T_BENCHMARKS + "test_retrieval_by_hand",
        "R@1 is R@2",
    ),
    Mutant(
        "eval.py",
        "F.normalize(F.normalize(features, dim=-1).mean(1), dim=-1)",
        "F.normalize(features.mean(1), dim=-1)",
        T_EVAL + "test_zeroshot_normalises_averages_normalises",
        "long prompts weigh more in a class's feature",
    ),
    Mutant(
        "eval.py",
        "mean = (hits / class_size[labels]).sum() / (class_size > 0).sum()",
        "mean = hits.float().mean()",
        T_BENCHMARKS + "test_zeroshot_by_hand",
        "large classes weigh more in the mean per class",
    ),
    Mutant(
        "eval.py",
        "score(t2i < k, chance, groups=image_of_caption)",
        "score(t2i < k, chance)",
        T_BENCHMARKS + "test_retrieval_by_hand",
        "the interval takes captions of one image for independent",
    ),
    Mutant(
        "eval.py",
        "float(np.mean([hits.mean() for hits in hits_of.values()])),",
        "float(is_correct.mean()),",
        T_BENCHMARKS + "test_sugarcrepe_by_hand",
        "large categories weigh more in the mean of composition",
    ),
    # ---- Batches.
    Mutant(
        "data/batches.py",
        "describes | describes.T.contiguous() | same_image",
        "describes | same_image",
        T_BATCHES + "test_duplicates_by_hand",
        "duplicates are not symmetric",
    ),
    Mutant(
        "data/batches.py",
        "describes | describes.T.contiguous() | same_image",
        "describes | describes.T.contiguous()",
        T_BATCHES + "test_duplicates_by_hand",
        "equal images are no duplicates",
    ),
    Mutant(
        "data/batches.py",
        "find_duplicates(captions_of_image, caption, digests)",
        "find_duplicates(captions_of_image, caption, torch.from_numpy(indices))",
        T_BATCHES + "test_equal_images_match_although_their_captions_differ",
        "images compared by their number, not by their content",
    ),
    Mutant(
        "data/batches.py",
        "all_captions[:, :, None] == caption",
        "all_captions[:, :1, None] == caption",
        T_BATCHES + "test_the_mask_marks_every_pair_that_matches_and_no_other",
        "only an image's first caption makes duplicates",
    ),
    Mutant(
        "data/batches.py",
        "np.random.default_rng((self.seed, number))",
        "np.random.default_rng(self.seed)",
        T_BATCHES + "test_batches_are_a_function_of_seed_and_step",
        "every epoch has the same order",
    ),
    Mutant(
        "data/batches.py",
        "np.random.default_rng((self.seed, number))",
        "np.random.default_rng(number)",
        T_BATCHES + "test_batches_are_a_function_of_seed_and_step",
        "the seed does not decide the order",
    ),
    Mutant(
        "data/batches.py",
        "return captions[int(draw * len(captions))]",
        "return captions[0]",
        T_BATCHES + "test_over_the_epochs_an_image_shows_several_of_its_captions",
        "always an image's first caption",
    ),
    Mutant(
        "data/batches.py",
        "if draw < share:",
        "if draw > share:",
        T_BATCHES + "test_long_captions_are_drawn_in_the_share_asked_for",
        "the longest caption drawn in the other cases",
    ),
    Mutant(
        "data/batches.py",
        "(draw - share) / (1 - share) * (len(captions) - 1)",
        "draw * (len(captions) - 1)",
        T_BATCHES + "test_long_captions_leave_the_others_equal_shares",
        "the other captions are not drawn alike",
    ),
    Mutant(
        "data/batches.py",
        "order[position * self.size : (position + 1) * self.size]",
        "order[position : position + self.size]",
        T_BATCHES + "test_each_image_comes_once_per_epoch_with_a_caption_of_its_own",
        "batches of one epoch overlap",
    ),
    Mutant(
        "data/batches.py",
        "to_device(label_tokens[caption[rows]], self.device)",
        "to_device(label_tokens[torch.from_numpy(indices)[rows]], self.device)",
        T_BATCHES + "test_label_tokens_are_those_of_the_captions_that_were_drawn",
        "labels of other captions",
    ),
    Mutant(
        "data/batches.py",
        "manual_seed(self.seed * 1_000_003 + step)",
        "manual_seed(self.seed * 1_000_003)",
        T_BATCHES + "test_crops_are_a_function_of_seed_and_step",
        "the same crops in every step",
    ),
    Mutant(
        "data/batches.py",
        "coming = thread.submit(self, step + 1, rows)",
        "coming = thread.submit(self, step, rows)",
        T_BATCHES + "test_ahead_gives_the_batches_of_its_steps_and_no_more",
        "each batch comes a step late",
    ),
    # ---- Captions.
    Mutant(
        "data/captions.py",
        "sorted(captions_of_image, key=len)",
        "captions_of_image",
        T_CAPTIONS + "test_distinct_captions_come_in_the_order_of_first_appearance[0]",
        "the longest caption is not the last",
    ),
    Mutant(
        "data/captions.py",
        "h.update(json.dumps(captions_of_image).encode())",
        'h.update("".join(captions_of_image).encode())',
        T_CAPTIONS + "test_the_fingerprint_of_captions_covers_texts_order_and_images",
        "the fingerprint forgets which image has which caption",
    ),
    Mutant(
        "data/captions.py",
        "self.starts = lengths.cumsum(0) - lengths",
        "self.starts = lengths.cumsum(0)",
        T_CAPTIONS + "test_padded_ids_by_hand",
        "each caption's ids are those of the next one",
    ),
    Mutant(
        "data/captions.py",
        "is_id = column < self.lengths[which, None]",
        "is_id = column <= self.lengths[which, None]",
        T_CAPTIONS + "test_padded_ids_by_hand",
        "the first id of the next caption in place of padding",
    ),
    Mutant(
        "data/captions.py",
        "max_length=self.context_length - 1",
        "max_length=self.context_length",
        T_CAPTIONS + "test_token_ids_end_with_end_and_are_cut_at_the_context_length[2]",
        "no room for END in a long caption",
    ),
    # ---- Vectors.
    Mutant(
        "data/vectors.py",
        "known.add(key)",
        "pass",
        T_VECTORS + "test_each_key_is_made_once_and_found_again[float16]",
        "a caption that comes twice is read twice",
    ),
    Mutant(
        "data/vectors.py",
        "whole.truncate(size - size % self.record.itemsize)",
        "pass",
        T_VECTORS + "test_a_file_that_was_cut_at_any_byte_is_completed",
        "half a record stays in the file",
    ),
    Mutant(
        "data/vectors.py",
        "llm.settings(pool, self.layer, context_length)",
        "llm.settings(pool, layer or 0, context_length)",
        T_VECTORS + "test_the_fingerprint_covers_all_that_decides_a_vector",
        "the cache is keyed by the flag, not by the block that is read",
    ),
    Mutant(
        "data/vectors.py",
        "np.random.default_rng((self.seed, step, 1))",
        "np.random.default_rng((self.seed, 1))",
        T_VECTORS + "test_views_of_a_frozen_tower_are_its_vectors_of_crops_read_once",
        "the same view of an image in every step",
    ),
    Mutant(
        "data/vectors.py",
        "h.update(name.encode() + tensor.cpu().numpy().tobytes())",
        "h.update(name.encode())",
        T_VECTORS + "test_views_of_a_frozen_tower_are_its_vectors_of_crops_read_once",
        "vectors of a tower with other weights are taken for these",
    ),
    Mutant(
        "data/vectors.py",
        "tower(crops(batch, start * n_views + v))",
        "tower(crops(batch, start * n_views))",
        T_VECTORS + "test_views_of_a_frozen_tower_are_its_vectors_of_crops_read_once",
        "all views of an image are one crop",
    ),
    Mutant(
        "data/vectors.py",
        "self.vectors[[self.row_of[name] for name in names]]",
        "self.vectors[: len(names)]",
        T_VECTORS + "test_outside_vectors_are_found_by_name",
        "foreign vectors taken by order, not by name",
    ),
    Mutant(
        "data/vectors.py",
        "stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size",
        "stat.st_size",
        T_VECTORS + "test_a_folder_is_read_once_and_what_changed_again",
        "a changed image keeps its old vector",
    ),
    # ---- Pixels.
    Mutant(
        PIXELS,
        "images.permute(0, 3, 1, 2).float()",
        "images.permute(0, 3, 2, 1).float()",
        T_PIXELS + "test_normalized_pixels_by_hand",
        "rows and columns exchanged",
    ),
    Mutant(
        PIXELS,
        ".div_(255).sub_(mean).div_(deviation)",
        ".sub_(mean).div_(deviation)",
        T_PIXELS + "test_normalized_pixels_by_hand",
        "pixels are not divided by 255",
    ),
    Mutant(
        PIXELS,
        "theta[:, 0, 2] = (2 * x - 1) * (1 - width)",
        "theta[:, 0, 2] = 0",
        T_PIXELS + "test_the_rectangle_may_lie_anywhere_in_the_image",
        "crops never leave the centre from left to right",
    ),
    Mutant(
        PIXELS,
        "theta[:, 1, 2] = (2 * y - 1) * (1 - height)",
        "theta[:, 1, 2] = (2 * x - 1) * (1 - height)",
        T_PIXELS + "test_the_rectangle_may_lie_anywhere_in_the_image",
        "crops lie on the diagonal only",
    ),
    Mutant(
        PIXELS,
        "theta[:, 1, 2] = (2 * y - 1) * (1 - height)",
        "theta[:, 1, 2] = (y - 0.5) * (1 - height)",
        T_PIXELS + "test_the_rectangle_may_lie_anywhere_in_the_image",
        "crops reach half of the way to the edge",
    ),
    Mutant(
        PIXELS,
        "area = smallest + (1 - smallest) * area",
        "area = smallest * area",
        T_PIXELS + "test_no_crop_is_smaller_than_was_asked_for[0.6]",
        "crops are smaller than --crop-scale",
    ),
    Mutant(
        PIXELS,
        "image = ImageOps.exif_transpose(image)",
        "pass",
        T_PIXELS + "test_to_square_turns_crops_and_flattens",
        "a photo lies on its side",
    ),
    Mutant(
        PIXELS,
        'Image.new("RGBA", image.size, "white")',
        'Image.new("RGBA", image.size, "black")',
        T_PIXELS + "test_to_square_turns_crops_and_flattens",
        "transparent becomes black",
    ),
    Mutant(
        PIXELS,
        "torch.exp((2 * ratio - 1) * math.log(4 / 3))",
        "torch.exp(ratio * math.log(4 / 3))",
        T_PIXELS + "test_the_area_and_the_form_of_the_rectangle_are_drawn_evenly",
        "no crop is higher than wide",
    ),
    # ---- Reading images.
    Mutant(
        READ,
        "remainder = images.digests % HELD_OUT",
        "remainder = np.arange(len(images)) % HELD_OUT",
        T_READ + "test_held_out_tenth_is_by_content",
        "a copy of a held-out image is trained on",
    ),
    Mutant(
        READ,
        '"train": ~is_test & ~is_val',
        '"train": ~is_val',
        T_READ + "test_held_out_tenth_is_by_content",
        "held-out images are trained on",
    ),
    Mutant(
        READ,
        "usable = [records[i] for i in rows]",
        "usable = records[: len(rows)]",
        T_READ + "test_broken_images_are_named_counted_and_limited",
        "captions move up by one behind a broken image",
    ),
    Mutant(
        READ,
        "return self.store[self.rows[which]]",
        "return self.store[which]",
        T_READ + "test_held_out_tenth_is_by_content",
        "pixels of other images behind the split",
    ),
    Mutant(
        READ,
        "captions[place_of[digest]] += images.captions[i]",
        "captions[place_of[digest]] = images.captions[i]",
        T_READ + "test_without_copies_each_image_is_there_once_with_all_captions",
        "captions of a copy are lost",
    ),
    Mutant(
        READ,
        "draw(image.scene, image.drawing, image_size)",
        "draw(image.scene, 0, image_size)",
        T_READ + "test_drawings_of_a_scene_share_its_captions",
        "both drawings of a scene are the same",
    ),
    Mutant(
        READ,
        "return planned[:count]",
        "return planned",
        T_READ + "test_drawings_of_a_scene_share_its_captions",
        "one image more than --train-num-samples",
    ),
    # ---- Tokens.
    Mutant(
        TOKENIZER,
        "lists.append(head + caption[:room] + tail)",
        "lists.append((head + caption + tail)[:max_length])",
        T_TOKENIZER + "test_token_lists",
        "the prompt is cut in place of the caption",
    ),
    Mutant(
        TOKENIZER,
        "text if text[:1].isspace() else space + text",
        "text",
        T_TOKENIZER + "test_token_lists",
        "the first word is another token than elsewhere",
    ),
    Mutant(
        TOKENIZER,
        "return [i for i in ids if i >= 0]",
        "return ids",
        T_TOKENIZER + "test_a_byte_that_the_vocabulary_lacks_is_dropped",
        "the id -1 for a byte that the vocabulary lacks",
    ),
    Mutant(
        TOKENIZER,
        "for left, right in merges:",
        "for left, right in sorted(merges):",
        T_TOKENIZER + "test_merges_have_an_order",
        "merges in another order than in the file",
    ),
    Mutant(
        TOKENIZER,
        'pattern == "qwen2", prefix, suffix)',
        "False, prefix, suffix)",
        T_TOKENIZER + "test_the_tokenizer_of_a_gguf_file",
        "Qwen's texts are not normalised",
    ),
    Mutant(
        TOKENIZER,
        "                side = after\n",
        "                side = before\n",
        T_TOKENIZER + "test_what_a_post_processor_puts_around_a_text",
        "what belongs behind a text is put before it",
    ),
    Mutant(
        TOKENIZER,
        "*range(161, 173)",
        "*range(161, 174)",
        T_TOKENIZER + "test_bytes_are_spelled_as_gpt_2_spells_them",
        "GPT-2's spelling of bytes is off by one",
    ),
    Mutant(
        TOKENIZER,
        '.replace(r"\\p{N}{1,3}", r"\\p{N}")',
        '.replace(r"\\p{N}{1,3}", r"\\p{N}+")',
        T_TOKENIZER + "test_where_each_pattern_cuts[qwen2-pieces3]",
        "Qwen takes a number whole",
    ),
    # ---- Weights.
    Mutant(
        TENSORS,
        "return (q - 8).astype(np.float32) * d",
        "return q.astype(np.float32) * d",
        T_TENSORS + "test_blocks_of_32_by_hand",
        "Q4_0 without its middle, 8",
    ),
    Mutant(
        TENSORS,
        "np.concatenate([packed & 15, packed >> 4], axis=1)",
        "np.stack([packed & 15, packed >> 4], axis=2).reshape(-1, 32)",
        T_TENSORS + "test_blocks_of_32_by_hand",
        "the two halves of a byte side by side",
    ),
    Mutant(
        TENSORS,
        "q = (low | (high << 4))",
        "q = (low | (high << 2))",
        T_TENSORS + "test_a_block_of_256_by_hand",
        "Q6_K's high bits in the wrong place",
    ),
    Mutant(
        TENSORS,
        "shape.reverse()",
        "pass",
        T_TENSORS + "test_a_gguf_file_made_by_hand_is_read",
        "GGUF's dimensions in reverse",
    ),
    Mutant(
        TENSORS,
        "values = values.swapaxes(1, 2)",
        "pass",
        T_TENSORS + "test_rows_of_heads_are_put_back_in_order",
        "rows of heads in llama.cpp's order",
    ),
    # ---- Files of language models.
    Mutant(
        LLM,
        "return 1 / (keep + (1 - keep) / factor)",
        "return 1 / (1 - keep + keep / factor)",
        T_LLM + "test_llama3_slows_slow_waves_by_hand",
        "Llama 3 stretches the fast waves",
    ),
    Mutant(
        LLM,
        'qkv_bias=attention_bias or family == "qwen2"',
        "qkv_bias=attention_bias",
        T_LLM + "test_what_differs_between_families",
        "Qwen2 without its biases",
    ),
    Mutant(
        LLM,
        'head_dim = config.get("head_dim") or width // heads',
        "head_dim = width // heads",
        T_LLM + "test_what_differs_between_families",
        "a head's own width is ignored",
    ),
    Mutant(
        LLM,
        "stored.interleaved_heads = config.kv_heads",
        "stored.interleaved_heads = config.heads",
        T_LLM + "test_rows_of_queries_and_keys_of_llama_are_in_another_order[llama-heads0]",
        "keys put in order by the number of queries",
    ),
    Mutant(
        LLM,
        '[*weight_files(path), path / "config.json", path / "tokenizer.json"]',
        '[*weight_files(path), path / "config.json"]',
        T_VECTORS + "test_the_fingerprint_covers_all_that_decides_a_vector",
        "vectors of another tokenizer are taken for these",
    ),
    Mutant(
        LLM,
        '"rope_theta": "rope.freq_base",',
        '"rope_theta": "rope.base",',
        T_LLM + "test_rows_of_queries_and_keys_of_llama_are_in_another_order[qwen2-heads1]",
        "the base of RoPE in a GGUF file is not read",
    ),
    Mutant(
        LLM,
        '"ffn_gate": "mlp.gate_proj",\n    "ffn_up": "mlp.up_proj",',
        '"ffn_gate": "mlp.up_proj",\n    "ffn_up": "mlp.gate_proj",',
        T_LLM + "test_the_names_of_gguf_files_are_those_of_hugging_face",
        "gate and content of GGUF files exchanged",
    ),
    # ---- The built-in world.
    Mutant(
        SHAPES,
        "if relation not in (last, OPPOSITE[last])",
        "if relation != OPPOSITE[last]",
        T_SHAPES + "test_three_things_form_a_corner",
        "three things may stand in a row",
    ),
    Mutant(
        SHAPES,
        "apart = are_apart()[seen].all(0)",
        "apart = are_apart()[seen].any(0)",
        T_SHAPES + "test_a_wrong_colour_can_be_told_from_all_that_are_in_the_image",
        "a wrong colour looks like one of the image",
    ),
    Mutant(
        SHAPES,
        "cells.append((x - dx, y - dy))",
        "cells.append((x + dx, y + dy))",
        T_SHAPES + "test_short_captions_are_true_and_say_everything",
        "left and right, above and below exchanged",
    ),
    Mutant(
        SHAPES,
        "return in_split & apart & other_shape",
        "return apart & other_shape",
        T_SHAPES + "test_splits_share_kinds_but_no_pair_of_things",
        "pairs of the test are trained on",
    ),
    Mutant(
        SHAPES,
        "if count > 1 or split_of_single(things[0], background) == split:",
        "if True:",
        T_SHAPES + "test_splits_share_kinds_but_no_pair_of_things",
        "single things of the test are trained on",
    ),
    Mutant(
        SHAPES,
        "return edit_thing(edited, i + 1, **{attribute: first})",
        "return edited",
        T_SHAPES + "test_negatives_change_what_their_category_says",
        "a swap that changes one thing only",
    ),
    Mutant(
        SHAPES,
        "if caption(edited) not in forbidden and not is_true(edited, scene):",
        "if not is_true(edited, scene):",
        T_SHAPES + "test_forbidden_captions_are_not_taken",
        "a false caption may be one of training",
    ),
    Mutant(
        SHAPES,
        "sizes = sorted(rng.sample(SIZES, count), key=SIZES.index)",
        "sizes = rng.sample(SIZES, count)",
        T_SHAPES + "test_the_larger_is_named_first_and_no_two_things_share_a_word",
        "a small thing may be named first",
    ),
    Mutant(
        SHAPES,
        "relations = tuple(OPPOSITE[relation] for relation in reversed(scene.relations))",
        "relations = tuple(reversed(scene.relations))",
        T_SHAPES + "test_paraphrases_are_true_and_different",
        "a scene told from its other end with the same relations",
    ),
    # ---- Several processes.
    Mutant(
        "data/processes.py",
        "            dist.all_reduce(parameter.grad)",
        "            pass",
        T_PROCESSES + "test_two_processes_have_the_gradients_of_one",
        "each process keeps its own gradients",
    ),
    Mutant(
        "data/processes.py",
        "            dist.broadcast(in_order, 0)",
        "            pass",
        T_PROCESSES + "test_two_processes_have_the_gradients_of_one",
        "processes begin with weights of their own",
    ),
    Mutant(
        "data/processes.py",
        "import torch.distributed.nn.functional\n",
        "",
        T_PROCESSES + "test_two_processes_have_the_gradients_of_one",
        "the group of processes never ends",
    ),
    Mutant(
        "data/processes.py",
        '"cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"',
        "None",
        T_PROCESSES + "test_processes_exchange_tensors_of_the_cpu_and_of_cuda[cuda]",
        "with a GPU no tensor of the CPU can be sent",
    ),
    Mutant(
        "data/processes.py",
        "in_order = tensor.contiguous()",
        "in_order = tensor",
        T_PROCESSES + "test_weights_that_lie_in_columns_are_sent_in_rows",
        "a matrix is sent as it lies in the memory",
    ),
    Mutant(
        "train.py",
        '":" in asked and processes.count() > 1',
        '":" in str(device) and processes.count() > 1',
        T_TRAIN + "test_processes_do_not_share_a_gpu",
        "a run of several GPUs is refused",
    ),
    Mutant(
        "llm_text.py",
        "        del model.layers[llm.pool_layer(pool, layer) :]",
        "        pass",
        T_LLM_TEXT + "test_a_reader_keeps_the_blocks_that_it_reads_and_no_others",
        "blocks that nobody reads are decoded",
    ),
    Mutant(
        "llm_text.py",
        '            llm.tuned_layer = llm.pool_layer("mean", tuning.layer)\n    if pool:',
        "            pass\n    if pool:",
        T_TUNE + "test_leaving_blocks_out_changes_no_vector[mean-True]",
        "an adapter's block is read after the others were left out",
    ),
    Mutant(
        "lift.py",
        "start = processes.rank() * len(inputs[0])",
        "start = 0",
        T_PROCESSES + "test_two_processes_have_the_gradients_of_one",
        "every process takes the gradients of the first one's rows",
    ),
    Mutant(
        "data/vectors.py",
        "processes.count())[rank]",
        "processes.count())[0]",
        T_PROCESSES + "test_two_processes_have_the_gradients_of_one",
        "all processes read the same share",
    ),
    Mutant(
        "data/vectors.py",
        "            path.unlink()",
        "            pass",
        T_PROCESSES + "test_two_processes_have_the_gradients_of_one",
        "what was joined is joined again",
    ),
    Mutant(
        "train.py",
        "signal_number = processes.largest(stop[0] if stop else 0)",
        "signal_number = 0",
        T_PROCESSES + "test_a_run_of_two_processes_is_stopped_and_goes_on",
        "a signal stops nothing",
    ),
    Mutant(
        "data/batches.py",
        "draws[:, rows]",
        "draws[:, : len(images)]",
        T_BATCHES + "test_some_rows_of_a_batch_are_those_of_the_whole[0.5]",
        "the second half of a batch is cropped like the first",
    ),
    # ---- The best weights.
    Mutant(
        "data/train_log.py",
        "max(merit(entry) for entry in self.curve)",
        "max(merit(entry) for entry in self.curve[-2:])",
        T_TRAIN + "test_the_best_weights_are_kept_and_read",
        "what is better than the last entry counts as the best",
    ),
    Mutant(
        "data/files/runs.py",
        "return best if best.is_file() else",
        "return best if not best.is_file() else",
        T_TRAIN + "test_the_best_weights_are_kept_and_read",
        "the best weights are not read",
    ),
    Mutant(
        "train.py",
        "    return read_run(path)\n",
        "    return read_run(folder)\n",
        T_TRAIN + "test_the_best_weights_are_kept_and_read",
        "a run goes on from its best weights, not from its last ones",
    ),
    # ---- sweep.py
    Mutant(
        "data/sweep.py",
        "return max(means",
        "return min(means",
        T_SWEEP + "test_the_best_setting_is_that_of_the_validation_images",
        "the worst setting of a sweep is called the best",
    ),
    Mutant(
        "data/sweep.py",
        "if not any(one.error for one in seeds)",
        "if not all(one.error for one in seeds)",
        T_SWEEP + "test_a_run_that_fails_is_named_and_its_setting_is_not_chosen",
        "a setting is chosen by the seeds that did not fail",
    ),
    Mutant(
        "data/sweep.py",
        'evaluated(one, "val", children)',
        'evaluated(one, "test", children)',
        T_SWEEP + "test_the_best_setting_is_that_of_the_validation_images",
        "a setting is chosen on test images",
    ),
    Mutant(
        "data/sweep.py",
        'state["step"] >= state["total"]',
        'state["step"] > state["total"]',
        T_SWEEP + "test_what_is_finished_is_kept_and_the_rest_goes_on",
        "a finished run is gone on with",
    ),
    Mutant(
        "data/sweep.py",
        "answer.stat().st_mtime_ns < saved",
        "answer.stat().st_mtime_ns > saved",
        T_SWEEP + "test_what_is_finished_is_kept_and_the_rest_goes_on",
        "old scores are taken for those of a run that has gone on",
    ),
    Mutant(
        "data/sweep.py",
        "if known != flags and (",
        "if False and (",
        T_SWEEP + "test_what_is_finished_is_kept_and_the_rest_goes_on",
        "a run with other flags is taken for one of the sweep",
    ),
    Mutant(
        "data/sweep.py",
        "self.each(subprocess.Popen.terminate)",
        "pass",
        T_SWEEP + "test_a_signal_ends_what_runs_and_begins_nothing",
        "a signal does not reach the processes of a sweep",
    ),
    Mutant(
        "data/world/winoground.py",
        'f"caption_{i}": caption(scene)',
        'f"caption_{1 - i}": caption(scene)',
        "tests/data/world/test_winoground.py::test_it_is_read_as_winoground_is",
        "the two captions of an example are exchanged",
    ),
]


def copy_project(folder: Path) -> None:
    """Copy all files that git knows, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        raise BadInput(f"git does not list the files of {ROOT}: {listed.stderr}")
    for name in listed.stdout.split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())


def pytest_status(folder: Path, tests: list[str]) -> int:
    """Run tests in a folder -> pytest's exit status: 0 if all pass, 1 if one fails, else more."""
    # Without -B, Python could take the compiled form of an edit for that of the next one.
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode


def survives(mutant: Mutant, folder: Path) -> bool:
    """Make a wrong edit in a copy of the project, run its test, and take the edit back."""
    path = folder / mutant.file
    right = path.read_text()
    if right.count(mutant.old) != 1:
        raise BadInput(
            f"{mutant.file} has {right.count(mutant.old)} times {mutant.old!r}, not once; bring "
            "this wrong edit up to date"
        )
    path.write_text(right.replace(mutant.old, mutant.new))
    status = pytest_status(folder, [mutant.test])
    path.write_text(right)
    if status not in (0, 1):
        raise BadInput(f"{mutant.test} does not run with {mutant.new!r} in {mutant.file}")
    return status == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", default="", help="a text in the file's name or in the words")
    only = parser.parse_args().only
    mutants = [mutant for mutant in MUTANTS if only in mutant.file or only in mutant.wrong]
    if not mutants:
        raise BadInput(f"--only {only}: no wrong edit has this text in its file or its words")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy_project(folder)
        if pytest_status(folder, sorted({mutant.test for mutant in mutants})):
            raise BadInput("the named tests do not all pass without any edit; mend that first")
        print("| file | wrong edit | test | caught |\n|---|---|---|---|", flush=True)
        survivors = 0
        for mutant in mutants:
            survived = survives(mutant, folder)
            survivors += survived
            caught = "NO" if survived else "yes"
            row = f"| {mutant.file} | {mutant.wrong} | `{mutant.test}` | {caught} |"
            print(row, flush=True)
    print(f"\n{len(mutants)} wrong edits, {survivors} survived")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(exit_status(main))
