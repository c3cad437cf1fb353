"""WebShop (Yao et al. 2022): buy a product that an instruction describes, in a shop with a search engine.

The engine is our own, of the rules, pages and reward that the authors published; products are those of a user's files in
their form, or a generated catalogue's.
"""
