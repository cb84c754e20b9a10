import { isUnset } from "../../component/environment.ts";
import type { OptionProblem } from "../../component/options.ts";

/** Names that no Kafka cluster would take, so that no topic of that name can ever exist. */
export function topicNameProblems(owner: string, topics: readonly string[]): OptionProblem[] {
  return topics
    .filter((topic) => !isUnset(topic) && !isTopicName(topic))
    .map((topic) => ({
      code: "option-invalid",
      message: `${owner}: ${shown(topic)} cannot be the name of a topic`,
      remedy: 'use 1 to 249 of the characters a-z A-Z 0-9 . _ - and neither "." nor ".."',
    }));
}

function isTopicName(topic: string): boolean {
  return /^[a-zA-Z0-9._-]{1,249}$/.test(topic) && topic !== "." && topic !== "..";
}

function shown(topic: string): string {
  return topic.length <= 249 ? JSON.stringify(topic) : `a text of ${topic.length} characters`;
}
