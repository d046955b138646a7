"""The mutants: what the program promises, broken in one place each, and the test that must see it.

A file is named without its folder and a test without its file (FILE::NAME where two have one name), so that both may
move. The text to replace must be in one file of that name, once.
"""

from typing import NamedTuple


class Mutant(NamedTuple):
    """One broken promise."""

    name: str
    file: str
    old: str
    new: str
    test: str


RECORDED = "test_a_recorded_run_goes_on_to_the_same_numbers"
DEVICES = "test_losses_and_parameters_agree"
SIGNALS = "test_every_module_imports_and_signals_are_caught_without_what_windows_lacks"

METHOD = [
    Mutant("EMA off: the target stands still", "step.py", "1 - self.config.ema_decay)", "0.0)",
           "test_the_target_follows_by_its_moving_average"),
    Mutant("EMA off: the target is the online network", "step.py", "1 - self.config.ema_decay)", "1.0)",
           "test_the_target_follows_by_its_moving_average"),
    Mutant("the target starts as another network", "state.py",
           "target_params, target_stats = jax.tree.map(jnp.copy, (params[\"online\"]",
           "target_params, target_stats = jax.tree.map(lambda x: 2 * x, (params[\"online\"]",
           "test_a_fresh_target_is_a_copy_of_the_online_network"),
    Mutant("target views not exchanged", "step.py",
           "_, q2 = target(x1, train=True)\n        _, q1 = target(x2, train=True)",
           "_, q1 = target(x1, train=True)\n        _, q2 = target(x2, train=True)",
           "test_each_view_learns_from_the_target_of_the_other"),
    Mutant("the target in inference mode", "step.py", "_, q2 = target(x1, train=True)",
           "_, q2 = target(x1, train=False)", RECORDED),
    Mutant("one of two similarity terms", "step.py", "total = first + second", "total = first", RECORDED),
    Mutant("alpha ignored", "step.py", "config.alpha * terms", "1.0 * terms", "test_the_total_is_the_weighted_sum"),
    Mutant("beta ignored", "step.py", "config.beta * terms", "1.0 * terms", "test_the_total_is_the_weighted_sum"),
    Mutant("the grouping loss is not squared", "step.py", "config.n_groups) ** 2", "config.n_groups)", RECORDED),
    Mutant("the teacher of the distillation is a sum and no mean", "losses.py",
           "sum(students[1:], students[0]) / len(students)", "sum(students[1:], students[0])",
           "test_the_teacher_of_mutual_distillation_gets_no_gradient"),
    Mutant("stop-gradient missing: the trunk in front of the grouping", "simfle.py",
           "jax.lax.stop_gradient(cells)", "cells", RECORDED),
    Mutant("distillation without the square of its temperature", "losses.py", "temperature**2 * divergence",
           "divergence", "test_units.py::test_losses"),
    Mutant("distillation the other way round", "losses.py",
           "jnp.exp(log_teacher) * (log_teacher - log_student)", "jnp.exp(log_student) * (log_student - log_teacher)",
           "test_units.py::test_losses"),
    Mutant("all patches are reconstructed", "losses.py", "(error * masked).sum() / masked.sum()", "error.mean()",
           "test_reconstruction_by_a_loop"),
    Mutant("the variance of a patch is the biased one", "losses.py", "ddof=1", "ddof=0",
           "test_reconstruction_by_a_loop"),
    Mutant("similarity without unit length", "losses.py", "2 - 2 * jnp.sum(_unit(at_least_float32(prediction))",
           "2 - 2 * jnp.sum((at_least_float32(prediction))",
           "test_similarity_is_the_squared_distance_of_unit_vectors"),
    Mutant("the patches of lowest score stay", "semantic_masking.py", "jnp.argsort(-scores", "jnp.argsort(scores",
           "test_semantic_masking"),
    Mutant("every image is masked by the first group", "simfle.py", "of_group(scores, draw)",
           "of_group(scores, 0 * draw)", RECORDED),
    Mutant("the default grouping starts at the published saddle", "channel_grouping.py",
           "if init == \"constant\":\n        return", "if init != \"he\":\n        return",
           "test_no_gradient_at_the_published_start"),
    Mutant("the running variance is the biased one", "layers.py", "(count / max(count - 1, 1))", "1.0", RECORDED),
    Mutant("another momentum of the running statistics", "layers.py", "0.9 * self.mean[...] + 0.1 * mean",
           "0.99 * self.mean[...] + 0.01 * mean", RECORDED),
    Mutant("one device's BatchNorm statistics instead of the global ones", "layers.py",
           "y, mean, var = normalise_batch(x, self.scale[...], self.bias[...])",
           "parts = x.reshape(jax.device_count(), -1, *x.shape[1:])\n"
           "        normalise = jax.vmap(normalise_batch, (0, None, None))\n"
           "        y, mean, var = normalise(parts, self.scale[...], self.bias[...])\n"
           "        y, mean, var = y.reshape(x.shape), mean.mean(0), var.mean(0)", DEVICES),
    Mutant("one device's grouping matrix instead of the global one", "losses.py",
           "maps = _unit(maps + 0.001, axis=1)",
           "maps = _unit(maps + 0.001, axis=1)[: len(maps) // jax.device_count()]", DEVICES),
    Mutant("each device gives every image a key of its own count", "step.py", "jnp.arange(batch))",
           "jnp.arange(batch) % (batch // jax.device_count()))",
           "test_the_next_step_on_other_devices_is_that_of_the_uninterrupted_run"),
    Mutant("accumulated gradients are summed", "step.py", "lambda x: x / parts, sums", "lambda x: x, sums",
           "test_accumulation_is_the_mean_over_micro_batches_with_statistics_carried_on"),
]  # fmt: skip

OPTIMIZER = [
    Mutant("momentum order: the rate enters the momentum", "optimizer.py",
           "inner,\n        optax.scale_by_learning_rate(schedule(config, steps_per_epoch)),",
           "optax.scale_by_learning_rate(schedule(config, steps_per_epoch)),\n        inner,",
           "test_steps_are_those_of_pytorchs_sgd"),
    Mutant("weight decay beside the momentum", "optimizer.py",
           "optax.add_decayed_weights(config.weight_decay),\n        inner,",
           "inner,\n        optax.add_decayed_weights(config.weight_decay),", "test_steps_are_those_of_pytorchs_sgd"),
    Mutant("no weight decay", "optimizer.py", "optax.add_decayed_weights(config.weight_decay)",
           "optax.add_decayed_weights(0.0)", "test_steps_are_those_of_pytorchs_sgd"),
    Mutant("no momentum", "optimizer.py", "optax.trace(config.momentum)", "optax.trace(0.0)",
           "test_steps_are_those_of_pytorchs_sgd"),
    Mutant("the rate falls within an epoch", "optimizer.py", "step // steps_per_epoch", "step / steps_per_epoch",
           "test_steps_are_those_of_pytorchs_sgd"),
    Mutant("the rate does not grow with the batch", "optimizer.py", "config.lr * config.batch_size / 256",
           "config.lr", "test_steps_are_those_of_pytorchs_sgd"),
]  # fmt: skip

CHANCE = [
    Mutant("seed ignored: augmentation", "step.py", "jax.random.key(seed), step)", "jax.random.key(0), step)",
           "test_an_image_has_a_key_by_seed_step_and_index_alone"),
    Mutant("seed ignored: first parameters", "state.py", "nnx.Rngs(config.seed)", "nnx.Rngs(0)",
           "test_another_seed_is_another_network"),
    Mutant("seed ignored: order of the images", "order.py", "default_rng((seed, epoch))", "default_rng((0, epoch))",
           "test_epochs_and_seeds_differ_and_repeat"),
    Mutant("seed ignored: order of the probe", "linear.py", "jax.random.key(sgd.seed), fit.epoch",
           "jax.random.key(0), fit.epoch", "test_another_seed_is_another_order_for_the_same_layer"),
    Mutant("augmentation is the same at every step", "step.py", "jax.random.key(seed), step)",
           "jax.random.key(seed), 0)", "test_an_image_has_a_key_by_seed_step_and_index_alone"),
    Mutant("augmentation keyed by batch", "step.py",
           "jax.vmap(jax.random.fold_in, (None, 0))(step_key, jnp.arange(batch))",
           "jax.random.split(jax.random.fold_in(step_key, batch), batch)",
           "test_an_image_has_a_key_by_seed_step_and_index_alone"),
    Mutant("both views are one", "augment.py", "return both[:, 0], both[:, 1]", "return both[:, 0], both[:, 0]",
           "test_views_differ_and_stay_in_range"),
    Mutant("blur off", "augment.py", "if max(views.blur):", "if not views.blur:",
           "test_every_part_of_the_augmentation_changes_the_views[blur]"),
    Mutant("jitter off", "augment.py", "if views.jitter:", "if not views.jitter:",
           "test_every_part_of_the_augmentation_changes_the_views[jitter]"),
    Mutant("grey off", "augment.py", "if views.gray:", "if not views.gray:",
           "test_every_part_of_the_augmentation_changes_the_views[gray]"),
    Mutant("flip off", "augment.py", "draws.flip[:, 0] < views.flip)", "draws.flip[:, 0] < 0)",
           "test_every_part_of_the_augmentation_changes_the_views[flip]"),
    Mutant("jitter in one order", "augment.py", "planes = _jitter(planes, *_jitter_settings(draws, views))",
           "planes = _jitter(planes, _jitter_settings(draws, views)[0], jnp.asarray(ORDERS)[jnp.zeros(len(planes), int)])",
           RECORDED),
    Mutant("the mean is not subtracted", "augment.py", "(images - jnp.asarray(mean, images.dtype))", "images",
           "test_normalise"),
    Mutant("the order is the same in every epoch", "order.py", "default_rng((seed, epoch))",
           "default_rng((seed, 0))", "test_epochs_and_seeds_differ_and_repeat"),
]  # fmt: skip

RUNS = [
    Mutant("resume off", "loop.py", "state = checkpoints.restore(shapes, shardings)", "state = None", RECORDED),
    Mutant("signals ignored", "stop.py", "for number in self.SIGNALS if", "for number in () if", SIGNALS),
    Mutant("images begin anew after a restart", "pipeline.py", "{\"next_index\": start_step}", "{\"next_index\": 0}",
           "test_starting_at_a_step_equals_having_come_there"),
    Mutant("metrics of steps that are done again stay", "workdir.py", "if line[\"step\"] <= resume_step]",
           "if line[\"step\"]]", "test_a_killed_run_goes_on_to_the_bit"),
    Mutant("refuse nothing: other settings", "workdir.py", "    if changed:\n", "    if not changed:\n",
           "test_another_config_is_refused_and_nothing_overwritten"),
    Mutant("refuse nothing: other images", "loop.py", "{\"data_fingerprint\": source.fingerprint}\n",
           "{\"data_fingerprint\": \"\"}\n", "test_other_images_are_refused"),
    Mutant("refuse nothing: a folder of something else", "workdir.py",
           "(folder.is_dir() and any(folder.iterdir()))", "False", "test_a_folder_that_is_no_run_is_refused"),
    Mutant("a loss that is not finite goes on", "loop.py", "if not math.isfinite(float(np.asarray(values[name]))):", "if not values:",
           "test_a_loss_that_is_not_finite_names_its_term_and_step"),
    Mutant("the exported encoder is the target", "encoder.py",
           "params, stats = (state.params[\"online\"], state.stats[\"online\"])",
           "params, stats = state.target_params, state.target_stats",
           "test_the_encoder_of_an_older_checkpoint_is_the_one_exported_then"),
    Mutant("a kept program serves other settings", "traced.py", "repr((identity, _surroundings()))",
           "repr(_surroundings())", "test_another_identity_is_another_program"),
    Mutant("a kept program serves other sources", "traced.py", "return _sources(), versions", "return 0, versions",
           "test_other_surroundings_are_another_program"),
    Mutant("every process reads the same rows", "pipeline.py", "slice(process_index * local, (process_index + 1) * local)",
           "slice(0, local)", "test_the_parts_of_the_processes_make_the_global_batch"),
    Mutant("Slurm is asked before Open MPI", "launchers.py", "(_open_mpi(environ), _hydra(environ), _slurm(environ))",
           "(_slurm(environ), _open_mpi(environ), _hydra(environ))",
           "test_the_innermost_launcher_wins_and_the_others_are_named"),
    Mutant("refuse nothing: half a launcher", "distributed.py", "launchers.refuse_half(environ)", "pass",
           "test_several_processes_of_which_the_number_is_missing_are_refused"),
    Mutant("a platform that is not there is JAX's to tell", "compilation.py", "except (RuntimeError, AssertionError):",
           "except ZeroDivisionError:",
           "test_a_platform_that_is_not_there_is_one_line_that_names_those_that_are[convert]"),
]  # fmt: skip

DATA = [
    Mutant("refuse nothing: too many bad images", "pipeline.py", "if number > max_bad_fraction * seen:",
           "if number > seen:", "test_too_many_bad_images_stop_the_run_within_the_epoch"),
    Mutant("orientation ignored", "decode.py", "exif.get(0x0112, 1)", "1", "test_exif_orientation_is_applied"),
    Mutant("transparent pixels on black", "decode.py", "image.size, \"white\")", "image.size, \"black\")",
           "test_transparent_pixels_are_laid_on_white"),
    Mutant("refuse nothing: enormous images", "decode.py", "if width * height > MAX_PIXELS:", "if not width:",
           "test_an_enormous_image_is_refused_from_its_header"),
    Mutant("a mixture without its weights", "mixing.py", "shares = [part.weight / total for part in parts]",
           "shares = [1 / len(parts) for part in parts]", "test_the_listing_has_the_shares_and_every_image"),
    Mutant("leaks between train and val are not seen", "check.py", "def _crosses(group: list[Facts]) -> bool:\n",
           "def _crosses(group: list[Facts]) -> bool:\n    return False\n", "test_planted_leaks_are_found"),
]  # fmt: skip

EVALUATION = [
    Mutant("probe selects on val though a holdout is asked for", "sets.py",
           "apart = {\"train-holdout\": Subset(train, np.flatnonzero(kept_apart)), **apart}",
           "apart = {**apart, \"train-holdout\": Subset(train, np.flatnonzero(kept_apart))}",
           "test_holdout_is_taken_out_of_train_and_chooses"),
    Mutant("probe trains on its holdout", "sets.py", "train = Subset(train, np.flatnonzero(~kept_apart))", "pass",
           "test_holdout_is_taken_out_of_train_and_chooses"),
    Mutant("the last epoch instead of the best", "linear.py", "better = accuracy > fit.best_accuracy",
           "better = accuracy >= 0", "test_best_epoch_is_the_first_of_the_highest_on_the_first_set"),
    Mutant("refuse nothing: the probe of another encoder", "records.py", "if encoder.is_called(probe.encoder_hash) else",
           "if True else", "test_evaluation_needs_a_probe_of_this_encoder"),
    Mutant("an untrained encoder is the trained one", "probe.py",
           "if probe.untrained else encoder", "if False else encoder", "test_untrained_is_another_encoder_and_repeats"),
    Mutant("rows and columns of the confusion exchanged", "scores.py",
           "np.asarray(labels) * n_classes + np.asarray(predictions)",
           "np.asarray(predictions) * n_classes + np.asarray(labels)", "test_rows_of_the_confusion_are_true_classes"),
    Mutant("balanced accuracy counts classes without images", "scores.py",
           "_mean_over(recall(matrix), matrix.sum(-1) > 0)", "recall(matrix).mean(-1)",
           "test_a_class_without_images_does_not_count"),
    Mutant("a sweep keeps its worst rate", "linear.py", "np.argmax(fit.best_accuracy)", "np.argmin(fit.best_accuracy)",
           "test_the_best_rate_of_a_sweep_gives_the_weights_of_that_rate_alone"),
    Mutant("neighbours are compared on their own bank", "nearest.py", "unit_rows(jnp.asarray(features[~apart]))",
           "unit_rows(jnp.asarray(features[apart]))",
           "test_neighbours_are_chosen_as_a_loop_over_single_settings_chooses"),
    Mutant("each probe of a pair draws its own images", "scores.py", "score(drawn.sum(2)) - score(drawn.sum(3))",
           "score(drawn.sum(2)) - score(drawn.sum(3)[::-1])", "test_a_paired_bootstrap_equals_one_that_draws_images"),
    Mutant("the monitor looks a step late", "loop.py", "step % self.monitor_steps == 0", "step % self.monitor_steps == 1",
           "test_scores_come_every_n_epochs_and_training_is_the_same_to_the_bit"),
    Mutant("features by their place and not by their name", "feature_table.py", "self.features[found]",
           "self.features[: len(found)]", "test_features_stand_in_the_order_of_the_listing_with_its_labels"),
    Mutant("balancing off", "linear.py", "p=_class_weights(labels, n_classes)[labels])", "p=None)",
           "test_balanced_sampling_draws_the_classes_equally_often"),
    Mutant("features by the batch's statistics", "encoder.py", "(images, train=False)", "(images, train=True)",
           "test_features_are_the_mean_of_the_feature_map_whatever_the_batch"),
    Mutant("the probe's crops are keyed by batch", "features.py", "(epoch_key, indices)",
           "(epoch_key, jnp.arange(len(indices)))", "test_crops_do_not_depend_on_the_batch"),
    Mutant("pickles of a checkpoint may run code", "files.py", "map_location=\"cpu\", weights_only=True", "map_location=\"cpu\", weights_only=False",
           "test_a_pickle_that_would_run_code_is_refused_in_one_line_and_does_not_run"),
]  # fmt: skip

MUTANTS = METHOD + OPTIMIZER + CHANCE + RUNS + DATA + EVALUATION
