package android.view;

import android.content.Context;
import java.util.ArrayList;
import java.util.List;

public class ViewGroup extends View {
  public final List<View> fakeChildren = new ArrayList<>();

  public ViewGroup(Context context) { super(context); }
  public void addView(View view) { fakeChildren.add(view); }
  public void removeAllViews() { fakeChildren.clear(); }
  @SuppressWarnings("unchecked")
  public final <V extends View> V findViewById(int id) { return (V) fakeFind(id); }
  @Override public View fakeFind(int wanted) {
    View found = super.fakeFind(wanted);
    for (View child : fakeChildren) {
      if (found == null) found = child.fakeFind(wanted);
    }
    return found;
  }
}
