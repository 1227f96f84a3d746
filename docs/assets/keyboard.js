// What the theme leaves out for those who use a keyboard or a screen reader: the name of the search, and what scrolls.
const scrolls = {
  Table: ".md-typeset__scrollwrap",
  Code: ".md-typeset pre > code, .jupyter-wrapper .highlight pre, .highlight-ipynb",
};
document$.subscribe(() => {
  for (const [name, what] of Object.entries(scrolls)) {
    for (const element of document.querySelectorAll(what)) {
      element.tabIndex = 0;
      element.setAttribute("role", "group");
      element.setAttribute("aria-label", name);
    }
  }
  document.querySelector(".md-search").setAttribute("aria-label", "Search");
});
