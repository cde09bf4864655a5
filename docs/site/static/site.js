// What scrolls sideways can be reached, and scrolled, by keyboard.
const SCROLLING = "pre, .formula, .table-wrapper, .block-map, .cell_output > *";

function reach() {
  for (const node of document.querySelectorAll(SCROLLING)) {
    if (node.scrollWidth > node.clientWidth) node.tabIndex = 0;
    else node.removeAttribute("tabindex");
  }
}

addEventListener("load", reach);
addEventListener("resize", reach);

// Paper is light, and shows what is folded. The views follow the page's theme.
let before;

addEventListener("beforeprint", () => {
  const folded = [...document.querySelectorAll("details:not([open])")];
  before = { theme: document.body.dataset.theme, folded };
  document.body.dataset.theme = "light";
  for (const node of folded) node.open = true;
});

addEventListener("afterprint", () => {
  document.body.dataset.theme = before.theme;
  for (const node of before.folded) node.open = false;
});
