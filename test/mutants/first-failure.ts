/**
 * Loaded before a killer: a property that fails is not shrunk, since only that it fails matters here, and begins
 * with the same seed each time, so that a mutant it kills once it always kills.
 */
import fc from "fast-check";

fc.configureGlobal({ ...fc.readConfigureGlobal(), endOnFailure: true, seed: 1 });
