// Earlier versions of a turn: its question, its answers, and the turns that followed.
//
// A turn is one of its versions at a time, number `version` of `versions`, whose own place there
// is out of date until the turn becomes another one.

const snapshot = ({ text, reference, answers }, after) => ({ text, reference, answers, after });

export const countOf = (turn) => Math.max(turn.versions?.length ?? 0, (turn.version ?? 0) + 1);

/** Keeps what a turn is before it is asked anew; not where nothing was said. */
export function leave(turn, after) {
  if (!after.length && !turn.answers.some((answer) => answer.text)) return;
  turn.versions ??= [];
  turn.versions[turn.version ?? 0] = snapshot(turn, after);
  turn.version = turn.versions.length;
}

/** Makes a turn another of its versions; gives the turns that follow in that. */
export function turnTo(turn, number, after) {
  turn.versions[turn.version] = snapshot(turn, after);
  const found = turn.versions[number];
  Object.assign(turn, { text: found.text, answers: found.answers, version: number });
  if (found.reference === undefined) delete turn.reference;
  else turn.reference = found.reference;
  return found.after;
}

/** The versions of a turn that it is not, with their numbers. */
export const othersOf = (turn) => [...(turn.versions ?? []).entries()]
  .filter(([number, found]) => found && number !== turn.version);

/** All turns, those of other versions among them. */
export const allTurns = (turns) => turns.flatMap((turn) =>
  [turn, ...othersOf(turn).flatMap(([, { after }]) => allTurns(after))]);
