//! Rollout.
