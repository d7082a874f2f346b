--- Collects values outside of their bounds, and counts the values that were examined.
--
--     local judged = judge()
--     judged.within("what it is", got, exact, limit)
--     judged.done(1000)                    -- fails if anything was, or if fewer were looked at

return function()
  local self = { seen = 0, wrong = {} }

  function self.within(what, got, exact, limit)
    self.seen = self.seen + 1
    local error = math.abs(got - exact)
    if error > limit or error ~= error then
      self.wrong[#self.wrong + 1] = ("%s: %.9g, exactly %.17g: off by %.4g, the bound is %.4g")
        :format(what, got, exact, error, limit)
    end
  end

  function self.done(at_least)
    local wrong = self.wrong
    assert(#wrong == 0, ("%d of %d values are out of bounds:\n%s"):format(#wrong, self.seen,
      table.concat(wrong, "\n", 1, math.min(#wrong, 5))))
    assert(self.seen >= at_least, ("only %d values were looked at"):format(self.seen))
  end

  return self
end
