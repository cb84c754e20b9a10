/** What we promise, a sentence each, by letter and number: every mutant breaks one. */
export const promises = {
  // Acknowledgement.
  A1: "nothing is acknowledged before all that it became is acknowledged",
  A2: "a checkpoint is the lowest position that is not settled; gaps count as settled",
  A3: "a message in several parts is settled when all of them are, with the worst outcome",
  A4: "accepted is the sum of all outcomes and what is in flight, at any time",
  A5: "a sink's acknowledgement means that the message is there for good",
  A6: "each source is acknowledged in its own way, and its broker has no cause to complain",
  A7: "when the faults are over everything arrives, and what is gone is told",
  // Order.
  B1: "messages of one order domain arrive in order",
  B2: "while a message is tried again, those behind it wait",
  B3: "no more is done at once than was asked for",
  B4: "asynchronous steps let go of messages in the order they came",
  B5: "a Kafka partition has one send outstanding",
  B7: "a key keeps its partition, or it is said that it does not",
  B8: "two different keys are never one",
  // Dedup.
  C1: "a twin shares the fate of its owner, and takes its place if it must",
  C2: "an id is remembered when its message was delivered, and not before",
  C3: "an id in a store outlives the process, and its message is not acknowledged before it is there",
  C4: "ids under way are not forgotten, and ids of ended lanes are",
  C5: "time is what has passed, not what the wall clock says",
  C7: "ids are exact, and none is no id",
  // Windows and batches.
  D1: "a batch is within its count and its bytes",
  D2: "a window closes in time after its first message",
  D3: "a batch is never empty",
  D4: "a window discards nothing",
  D5: "windows and twins that hold all credit let go, and only then",
  D6: "of a batch that is accepted in part, the rest alone is tried again",
  D7: "a batch has every message of a key",
  D8: "a batch that is too large is split if that helps, and held if not",
  // Flow control.
  E1: "what is in flight and fetched is bounded",
  E3: "credit that comes back is used, in decent portions",
  E4: "one stuck lane does not stop the others",
  E5: "a broker's alarm stops what is published",
  // Epochs.
  F1: "an epoch that is over settles and commits nothing",
  F2: "a committed position never goes back",
  F3: "whoever holds messages of a lane that ended lets go of them",
  F4: "nothing of an ended epoch goes on",
  F5: "commits get through however often they fail",
  // Shutdown.
  G: "a stop finishes, acknowledges and closes, in this order; what it could not finish it says",
  // Errors.
  I1: "every error has one class, and no message is blamed for what is not its own fault",
  I2: "while dead letters cannot be written nothing of them is acknowledged",
  I3: "a dead letter has the bytes as they came",
  I4: "no good message is dead-lettered",
  I5: "attempts end",
  // Reconnects.
  J1: "attempts are spread in time",
  J2: "after a reconnect all is as it was, and what was unconfirmed goes first, in order",
  J3: "a connection that is of no use is given up, and nothing else is",
} as const;
