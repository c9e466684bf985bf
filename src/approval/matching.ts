/** Who fills which slot: the largest assignment of people to places, one place each. */
import type { Person, Slot } from "./requirement.js";

/** One person in one slot. */
export interface Assignment {
  readonly person: string;
  /** Index into the slots. */
  readonly slot: number;
}

/** Whether the person belongs to one of the slot's groups; a slot without groups takes anyone. */
export function fits(person: Person, slot: Slot): boolean {
  return slot.groups.length === 0 || slot.groups.some((g) => person.groups.includes(g));
}

/**
 * Fills as many places as can be filled (augmenting paths). First come, first placed would be wrong: with the
 * slots "anyone" and "one of dba", a DBA who approves first must not take the place that anyone could fill.
 * Law: no other assignment fills more places. People keep their order, so the same input gives the same result.
 * @param everyone all who could ever approve: places that few of them fit are filled first, so that what is left
 *   open is what most people can still fill.
 */
export function assign(
  people: readonly Person[],
  slots: readonly Slot[],
  everyone: readonly Person[] = people,
): readonly Assignment[] {
  const places = placesOf(slots, everyone);
  const holder: (Person | undefined)[] = places.map(() => undefined);
  const place = (person: Person, tried: Set<number>): boolean => {
    for (const [i, { slot }] of places.entries()) {
      if (tried.has(i) || !fits(person, slot)) continue;
      tried.add(i);
      const present = holder[i];
      if (present !== undefined && !place(present, tried)) continue;
      holder[i] = person;
      return true;
    }
    return false;
  };
  for (const person of people) place(person, new Set());
  return places.flatMap(({ index }, i) => {
    const person = holder[i];
    return person === undefined ? [] : [{ person: person.name, slot: index }];
  });
}

function placesOf(
  slots: readonly Slot[],
  everyone: readonly Person[],
): readonly { readonly slot: Slot; readonly index: number }[] {
  const choice = (slot: Slot): number => everyone.filter((p) => fits(p, slot)).length;
  return slots
    .flatMap((slot, index) => Array.from({ length: slot.people }, () => ({ slot, index })))
    .sort((a, b) => choice(a.slot) - choice(b.slot));
}
