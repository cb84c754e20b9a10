/**
 * A classic queue with `x-max-priority`: each level costs the broker a queue of its own, so a few are enough. A quorum
 * queue takes no such argument. RabbitMQ 4 gives it two levels by itself, below 5 and from 5 on, and serves the upper
 * one about twice for each time it serves the lower; before that it had none.
 */
export const jobs = { type: "classic", maxPriority: 5 } as const;
