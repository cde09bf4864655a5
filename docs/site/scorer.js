// Which pages a search shows first: a lesson before an entry, an entry before an exercise's module.
var Scorer = {
  score: ([page, , , , score]) =>
    score + (page.startsWith("lessons/") ? 12 : 0) - (page.includes("exercises.") ? 12 : 0),
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 4, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
